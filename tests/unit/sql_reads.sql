select id, total, extra, extra, at, null, array[1,2], 'x'::bytea from orders order by id limit 2 -- x
;;
with a as (select 1 as x) select x from a
;;
select 12345678901234567890.123456789::numeric
;;
select city, count(*) as n, sum(total), avg(total)::numeric(10,2) from orders group by city having count(*) > 1 order by n desc, 1 limit 10 offset 5
;;
select date_trunc('month', at) as m, count(*) filter (where total > 10) from orders where at >= now() - interval '30 days' group by 1
;;
select o.id, i.sku, row_number() over (partition by o.id order by i.n desc) from orders o left join items i on i.order_id = o.id where o.city ilike '%x%' and o.st = 'open'
;;
select extra->>'n', extra->'a'->0, extra #>> '{a,b}', extra @> '{"a":1}', extra ? 'n', jsonb_path_query(extra, '$.n') from orders
;;
select * from orders where tags && array['a','b'] and 'x' = any(tags) and city ~* '^a.*z$' and city !~ 'b'
;;
select extract(epoch from at), extract(dow from at), to_char(at, 'YYYY-MM-DD HH24:MI'), at at time zone 'Europe/Berlin', at::date, age(at) from orders
;;
select percentile_cont(0.5) within group (order by total), string_agg(distinct city, ', ' order by city), array_agg(id order by id), mode() within group (order by city) from orders
;;
with recursive t(n) as (values (1) union all select n+1 from t where n < 5) select * from t
;;
select generate_series(1,3), unnest(array[1,2,3])
;;
select d::date from generate_series('2026-01-01'::date, '2026-02-01'::date, interval '1 day') as d
;;
select * from json_to_recordset('[{"a":1,"b":"x"}]') as x(a int, b text)
;;
select substring(city from 2 for 3), position('a' in city), trim(both ' ' from city), overlay(city placing 'b' from 1 for 2), left(city, 3), split_part(city, ' ', 1), initcap(city), city || '!' from orders
;;
select case when total > 5 then 'big' when total is null then null else 'small' end, coalesce(total, 0), nullif(total, 0), greatest(1,2,total) from orders
;;
select count(distinct city), count(*) from orders where id in (select order_id from items where n between 1 and 5) and exists (select 1 from items where order_id = orders.id)
;;
select "Odd Name", "user", Orders.ID from Orders where "Odd Name" is distinct from 3
;;
values (1, 'a'), (2, 'b')
;;
table orders
;;
select 1 union all select 2 except select 3 order by 1
;;
select city, total, rank() over w, lag(total, 1) over w, sum(total) over (order by id rows between 2 preceding and current row) from orders window w as (partition by city order by total desc)
;;
select city, st, sum(total) from orders group by grouping sets ((city), (st), ())
;;
select city, sum(total), grouping(city) from orders group by rollup (city)
;;
select distinct on (city) city, id from orders order by city, at desc nulls last
;;
select 'it''s', 'a\b', 'a\', '--not a comment', '/* nor this */', 'x;y'
;;
select o.* from orders o cross join lateral (select n from items i where i.order_id = o.id order by n desc limit 1) as l
;;
select column_name, data_type from information_schema.columns where table_schema = 't' order by ordinal_position
;;
select relname, n_live_tup, pg_size_pretty(pg_total_relation_size(relid)) from pg_stat_user_tables
;;
select (extra->>'n')::int + 1, cast(total as int), total::text, id::varchar(10), 'open'::state, 'open'::t.state, '{1,2}'::int[] from orders
;;
select round(total, 2), floor(total), ceil(total), abs(total), mod(id, 3), id % 3, power(2, 3), 2 ^ 3, sqrt(2) from orders
;;
select o.id, (o).*, (row(1,2)).* from orders o
;;
select to_tsvector('english', city) @@ plainto_tsquery('english', 'x') from orders
;;
select at::timestamp, date '2026-01-01', timestamp '2026-01-01 00:00', time '10:00', timestamptz '2026-01-01Z', interval '1' day, interval '1 year 2 months' from orders
;;
select regexp_replace(city, '(\d+)', '<\1>', 'g'), regexp_matches(city, '\w+'), city similar to '%(b|d)%', city like 'a\%b' escape '\' from orders
;;
select id from orders fetch first 3 rows only
;;
select jsonb_agg(row_to_json(o)) from (select id, city from orders) o
;;
select xpath('/a/b', x) from orders
;;
select current_date, current_timestamp, now(), current_user, localtimestamp
;;
select a.id from orders a join orders b using (id) natural join items full outer join items c on true
;;
select * from orders tablesample system (10)
;;
select id, (select count(*) from items where order_id = o.id) as cnt from orders o where (city, id) in (select city, max(id) from orders group by city)
;;
with a as materialized (select * from orders), b as (select * from a where id > 3) select count(*) from b
;;
select count(*) from orders where not (city = 'a' or city <> 'b') and total is not null and (total > 5) is true
;;
select width_bucket(total, 0, 100, 10), count(*) from orders group by 1 order by 1
;;
select jsonb_object_agg(city, total), jsonb_build_object('a', 1, 'b', array[1,2]), to_jsonb(tags), jsonb_array_elements_text('[1,2]') from orders group by tags
;;
select tags[1], tags[1:2], array_length(tags, 1), cardinality(tags), array_to_string(tags, ',') from orders
;;
select id from orders where at > timestamp '2026-01-01' and at < current_date + 1 and extract(year from at) = 2026
;;
select corr(total, id), stddev(total), variance(total), covar_pop(id, total), regr_slope(total, id) from orders
;;
select * from unnest(array['a','b']) with ordinality as t(name, nr)
;;
select lower(city) as lower, upper(city) "Upper" from orders
;;
select -id, +id, not true, id<>-1 from orders
;;
select 'a'
'b'
;;
select md5(city), sha256('x'::bytea), encode('x'::bytea, 'hex'), gen_random_uuid() from orders
;;
select * from (values (1,'a'),(2,'b')) as v(n, s) where n = 1
;;
select max(total) from orders limit all
;;
select first_value(id) over (order by at groups between unbounded preceding and unbounded following exclude current row) from orders
;;
select 10 / 3, 10.0 / 3, -7 / 2, -7 % 3, 1e10, 1.5e-3, .5
;;
select left(city, 2), right(city, 2) from orders
;;
/* first */ select 1 -- last
;;
select 1;
;;
select all 1

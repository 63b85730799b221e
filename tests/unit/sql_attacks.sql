select pg_logical_emit_message(false, 'a', 'b')
;;
select PG_Terminate_Backend(1)
;;
select pg_catalog.pg_logical_emit_message(false,'a','b')
;;
select "pg_logical_emit_message"(false,'a','b')
;;
select pg_catalog."pg_logical_emit_message"(false,'a','b')
;;
select "pg_catalog"."pg_logical_emit_message"(false,'a','b')
;;
select U&"pg\005flogical_emit_message"(false,'a','b')
;;
select U&"pg!005flogical_emit_message" UESCAPE '!' (false,'a','b')
;;
select 1, "pg_notify"('a','b')
;;
select lower('x'), "pg_notify"('a','b')
;;
select pg_notify/**/('a','b')
;;
select pg_notify -- x
('a','b')
;;
select /* /* */ */ pg_notify('a','b')
;;
select 'a\', pg_notify('a','b'), 'b'
;;
select 'a\'', pg_notify('a','b'), '\'
;;
select E'a\', pg_notify('a','b'), 'b'
;;
select E'a\'', pg_notify('a','b'), E'\''
;;
select e'\\', pg_notify('a','b'), e'\\'
;;
select U&'\0027', pg_notify('a','b'), U&'\0027'
;;
select U&'!0027' UESCAPE '!', pg_notify('a','b')
;;
select $$a$$, pg_notify('a','b'), $$b$$
;;
select $a$ $$ $a$, pg_notify('a','b'), $a$ $$ $a$
;;
select $a$x$b$, pg_notify('a','b'), $b$y$a$
;;
select $ä$ ' $ä$, pg_notify('a','b'), $ä$ ' $ä$
;;
select 1 as a$b, '$b', pg_notify('a','b'), '$b'
;;
select id$$, pg_notify('a','b') as x$$ from orders
;;
select N'a', pg_notify('a','b')
;;
select B'1', X'1', pg_notify('a','b')
;;
select 1 {# , #} , pg_notify('a','b')
;;
select '{{', pg_notify('a','b'), '}}'
;;
select '{#', pg_notify('a','b'), '#}'
;;
select '{%', pg_notify('a','b'), '%}'
;;
select 1 # 2, pg_notify('a','b')
;;
select 1 as "a""b", pg_notify('a','b')
;;
select `pg_notify('a','b')`
;;
select [pg_notify('a','b')]
;;
select 1 operator(pg_catalog.+) 2, pg_notify('a','b')
;;
select 1 operator(t.+) 2
;;
select evil(o) from orders o
;;
select t.evil2(1)
;;
select evil2(1)
;;
select query_to_xml('select 1', true, false, '')
;;
select table_to_xml('orders', true, false, '')
;;
select database_to_xml(true, false, '')
;;
select * from ts_stat('select to_tsvector(city) from orders')
;;
select * from ts_stat($$select pg_notify('a','b')::text::tsvector$$)
;;
select ts_rewrite('a'::tsquery, 'select 1')
;;
select set_config('role', 'postgres', false)
;;
select set_config('session_authorization', 'postgres', false), query_to_xml('drop table orders', true, false, '')
;;
select current_setting('is_superuser')
;;
select pg_switch_wal()
;;
select lo_from_bytea(0, 'x')
;;
select nextval('x')
;;
select pg_advisory_lock(1)
;;
select pg_sleep(1)
;;
select pg_read_file('/etc/passwd')
;;
select * from pg_ls_dir('/')
;;
select * from rows from (generate_series(1,2), pg_ls_dir('/'))
;;
select * from pg_catalog.pg_ls_dir('/') as "x"("y")
;;
select * from generate_series(1,2) g, lateral pg_notify('a', g::text)
;;
select 1 from orders order by pg_notify('a','b')
;;
select 1 from orders group by pg_notify('a','b')::text
;;
select 1 limit (select 1 from pg_notify('a','b'))
;;
select count(*) filter (where pg_terminate_backend(1)) from orders
;;
select sum(1) over (partition by pg_notify('a','b')::text) from orders
;;
select sum(1) over w from orders window w as (order by pg_notify('a','b')::text)
;;
select case when pg_terminate_backend(1) then 1 end
;;
select array[pg_notify('a','b')]
;;
select array(select pg_notify('a','b'))
;;
select row(pg_notify('a','b'))
;;
values (pg_notify('a','b'))
;;
values ((select 1 from pg_ls_dir('/')))
;;
with a as (select pg_notify('a','b')) table a
;;
with "pg_notify"("x") as (select 1) select "pg_notify"('a','b')
;;
with pg_notify(x) as (select 1) select pg_notify('a','b')
;;
select * from orders tablesample system (1) repeatable (pg_switch_wal()::text::int)
;;
select * from orders where city like pg_notify('a','b')::text escape '\'
;;
select xmlelement(name a, pg_notify('a','b'))
;;
select * from xmltable('/a' passing query_to_xml('select 1', true, false, '') columns b int path 'c')
;;
select * from json_table('[1]', '$' columns (a int path '$' default pg_notify('a','b')::text::int on empty))
;;
select json_value('{}', '$.a' default pg_notify('a','b')::text on empty)
;;
select json_object('a': pg_notify('a','b'))
;;
select extract(epoch from pg_notify('a','b')::text::timestamp)
;;
select substring(pg_notify('a','b')::text from 1)
;;
select trim(pg_notify('a','b')::text)
;;
select cast(pg_notify('a','b') as text)
;;
select pg_notify('a','b')::text
;;
select interval '1 day' * pg_terminate_backend(1)::int
;;
select coalesce(pg_notify('a','b')::text)
;;
select nullif(1, pg_terminate_backend(1)::int)
;;
select 1 in (pg_terminate_backend(1)::int)
;;
select 1 between 0 and pg_terminate_backend(1)::int
;;
select exists(select pg_notify('a','b'))
;;
select (select pg_notify('a','b'))
;;
select all_x from (select pg_notify('a','b') as all_x) q
;;
select 1; delete from orders
;;
select 1) q; delete from orders; select * from (select 1
;;
delete from orders
;;
with gone as (delete from orders returning id) select * from gone
;;
select * into stolen from orders
;;
select * from orders for update
;;
explain analyze delete from orders
;;
copy orders to program 'x'
;;
do $$ begin end $$
;;
call wipe()
;;
select pg_notify ('a', 'b')
;;
select pg_notify	('a', 'b')
;;
select pg_notify ('a', 'b')
;;
select any_value(pg_notify('a','b')::text)
;;
select variadic pg_notify('a','b')
;;
select concat(variadic array[pg_notify('a','b')::text])
;;
select pg_notify(channel => 'a', payload => 'b')
;;
select * from dblink('x', 'y') as t(a int)
;;
select left(pg_notify('a','b')::text, 1)
;;
select date_trunc('day', pg_notify('a','b')::text::timestamp)
;;
select log(2, pg_terminate_backend(1)::int)
;;
select if(true, pg_notify('a','b'), 1)
;;
select pg_notify('a','b') collate "C"
;;
select '1'::int4, 'x'::regclass, pg_notify('a','b') is null
;;
select 1 where row(1, pg_terminate_backend(1)) = row(1, true)
;;
select 1 = any (select pg_terminate_backend(1)::int)
;;
select 'a' ||/* ' */ pg_notify('a','b') /* ' */
;;
select 1 -- \
, pg_notify('a','b')
;;
select 1 --;
, pg_notify('a','b')
;;
select 'x' as "y'", pg_notify('a','b') as "'"
;;
select uuid_generate_v4()
;;
select pg_stat_clear_snapshot()
;;
select setseed(0.5)
;;
select currval('x'), lastval()
;;
select txid_current()
;;
select pg_current_xact_id()
;;
select pg_export_snapshot()
;;
select $1
;;
select :a
;;
select ?
;;
select @a
;;
select '', pg_notify('a','b'), ''
;;
select '''', pg_notify('a','b'), ''''
;;
select ('1'::float8).pg_sleep
;;
select ('work_mem'::text).current_setting
;;
select ('1'::bigint).pg_advisory_lock
;;
select ('q'::text).app_secret
;;
select ('select to_tsvector(set_config(''statement_timeout'',''0'',false))'::text).ts_stat
;;
select (4711).pg_terminate_backend
;;
select cast(1 as float8).pg_sleep
;;
select '1'::float8 .pg_sleep
;;
select (select 1.0::float8).pg_sleep
;;
select (array[1.0])[1].pg_sleep
;;
select (o).app_secret from orders o
;;
select (o.total)."pg_sleep" from orders o
;;
select o.tags[1].current_setting from orders o
;;
select (o.a).b.c from orders o
;;
select a.b.c.d.pg_sleep from orders a
;;
select null.pg_sleep
;;
select count(*).pg_sleep from orders
;;
select id from orders order by (total).pg_sleep

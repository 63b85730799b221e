-- name: put
insert into outbox (tenant, source_key, run_id, thread, kind, text) values ($1, $2, $3, $4, $5, $6)
on conflict (source_key) do nothing

-- name: take
-- What failed comes last: it keeps nothing else waiting.
select id, tenant, source_key, run_id, thread, kind, text, created_at from outbox
where ($1::uuid is null or run_id = $1) and refused_at is null order by tries, id limit $2

-- name: failed
update outbox set tries = tries + 1 where id = $1

-- name: set_aside
update outbox set refused_at = clock_timestamp(), refusal = $2 where id = $1

-- name: drop
delete from outbox where id = any($1::bigint[])

-- name: count
-- So many at the most: asked again and again while a store is away, it must not read ever more rows.
select count(*) from (select from outbox where refused_at is null limit 1000) as waiting

-- name: put_recall
insert into recalls (run_id, step_no, hits) values ($1, $2, $3)
on conflict (run_id, step_no) do nothing

-- name: recalled
select json_array_length(hits) from recalls where run_id = $1 and step_no = $2

-- name: get_recall
select hits from recalls where run_id = $1 and step_no = $2

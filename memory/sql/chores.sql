-- name: take
-- One statement, no lock that is held: a worker that is frozen or killed afterwards keeps nobody from the next part.
insert into chores (name, at) values ($1, clock_timestamp())
on conflict (name) do update set at = excluded.at
where chores.at < clock_timestamp() - make_interval(secs => $2)
returning cursor

-- name: move
update chores set cursor = $2 where name = $1

-- name: blobs
-- The next blobs by id, however old, so that a pass costs the same whether there is something to remove or not. What
-- plugins put into a request (`sent-…`) is named by the recorded request, not by a message.
with looked as materialized (select id, created_at from blobs where id > $1 order by id limit $3),
gone as (
    delete from blobs b using looked l
    where b.id = l.id and l.created_at < clock_timestamp() - make_interval(secs => $2) and b.id not like 'sent-%'
      and not exists (select from messages m where m.blob = b.id)
    returning 1
)
select (select max(id) from looked) as last, (select count(*) from looked) as looked, (select count(*) from gone) as gone

-- name: late_outcomes
delete from late_outcomes where id = any (array(
    select id from late_outcomes where at < clock_timestamp() - make_interval(secs => $1) order by id limit $2
))

-- name: deltas
delete from deltas where ctid = any (array(
    select ctid from deltas where at < clock_timestamp() - make_interval(secs => $1) limit $2
))

-- name: listen
with made as (insert into listeners (plugin) values ($1) on conflict (plugin) do nothing returning since)
select since from made union all select since from listeners where plugin = $1 limit 1

-- name: behind
-- $2 is a parameter and not read here: the planner must see that few events are so young. Who was tried last comes last.
select e.run_id
from (select run_id, max(seq) as seq from events where at > $2 group by run_id) e
left join heard k on k.plugin = $1 and k.run_id = e.run_id
where e.seq > coalesce(k.seq, 0) and coalesce(k.lease_until, '-infinity') < clock_timestamp()
order by k.lease_until nulls first, e.run_id limit 100

-- name: caught_up
-- An event is seen by others some time after the time it bears, its commit: hence the minutes.
update listeners set since = now() - interval '5 minutes'
where plugin = $1 and since < now() - interval '10 minutes' and not exists (
    select from events e left join heard k on k.plugin = $1 and k.run_id = e.run_id
    where e.at > $2 and e.at <= now() - interval '5 minutes' and e.seq > coalesce(k.seq, 0)
)

-- name: take
-- Nobody else may tell this plugin of this run until the lease is over; no row if somebody else does.
insert into heard (plugin, run_id, lease_until) values ($1, $2, clock_timestamp() + make_interval(secs => $3))
on conflict (plugin, run_id) do update set lease_until = excluded.lease_until
where heard.lease_until < clock_timestamp()
returning seq

-- name: told
update heard set seq = greatest(seq, $3), lease_until = clock_timestamp() + make_interval(secs => $4)
where plugin = $1 and run_id = $2

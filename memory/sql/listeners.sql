-- name: listen
insert into listeners (plugin) values ($1) on conflict (plugin) do nothing

-- name: behind
-- Runs with events that a plugin has not heard: open ones, and those that ended lately; older news a kill cannot have cost.
select r.run_id
from listeners l
join runs r on r.state in ('queued', 'running', 'waiting') or r.created_at > clock_timestamp() - interval '7 days'
join heads h on h.run_id = r.run_id
left join heard k on k.plugin = l.plugin and k.run_id = r.run_id
where l.plugin = $1 and h.seq > coalesce(k.seq, 0) and coalesce(r.ended_at, 'infinity') > l.since
  and coalesce(k.lease_until, '-infinity') < clock_timestamp()
order by r.created_at limit 100

-- name: take
-- Nobody else may tell this plugin of this run until the lease is over; no row if somebody else does.
insert into heard (plugin, run_id, lease_until) values ($1, $2, clock_timestamp() + make_interval(secs => $3))
on conflict (plugin, run_id) do update set lease_until = excluded.lease_until
where heard.lease_until < clock_timestamp()
returning seq

-- name: told
update heard set seq = greatest(seq, $3), lease_until = clock_timestamp() + make_interval(secs => $4)
where plugin = $1 and run_id = $2

-- name: listen
with made as (insert into listeners (plugin) values ($1) on conflict (plugin) do nothing returning since)
select since from made union all select since from listeners where plugin = $1 limit 1

-- name: behind
-- $2 is a parameter and not read here: the planner must see that few events are so young. Of those, the oldest $3 are
-- looked at; the mark then moves past them. Who was tried last comes last. Pending runs are found by their row.
select e.run_id
from (
    select run_id, max(seq) as seq
    from (select run_id, seq from events where at > $2 order by at limit $3) young group by run_id
) e
left join heard k on k.plugin = $1 and k.run_id = e.run_id
where e.seq > coalesce(k.seq, 0) and not coalesce(k.pending, false)
    and coalesce(k.lease_until, '-infinity') < clock_timestamp()
order by k.lease_until nulls first, e.run_id limit 100

-- name: pending
select run_id from heard where plugin = $1 and pending and lease_until < clock_timestamp() order by lease_until limit 100

-- name: caught_up
-- An event is seen by others some time after the time it bears, its commit: hence the minutes. Past $3 events at most;
-- the microsecond keeps in sight those that bear the same time as the last of them.
with looked as materialized (
    select run_id, seq, at from events where at > $2 and at <= now() - interval '5 minutes' order by at limit $3
)
update listeners set since = case
    when (select count(*) from looked) < $3 then now() - interval '5 minutes'
    else (select max(at) from looked) - interval '1 microsecond' end
where plugin = $1 and since < now() - interval '10 minutes' and not exists (
    select from looked e left join heard k on k.plugin = $1 and k.run_id = e.run_id
    where e.seq > coalesce(k.seq, 0) and not coalesce(k.pending, false)
)

-- name: take
-- Nobody else may tell this plugin of this run until the lease is over; no row if somebody else does.
insert into heard (plugin, run_id, lease_until) values ($1, $2, clock_timestamp() + make_interval(secs => $3))
on conflict (plugin, run_id) do update set lease_until = excluded.lease_until
where heard.lease_until < clock_timestamp()
returning seq

-- name: told
-- That the plugin takes events is written down once a second at most.
with took as (
    update listeners set took_at = clock_timestamp()
    where plugin = $1 and coalesce(took_at, '-infinity') < clock_timestamp() - interval '1 second'
        and exists (select from heard where plugin = $1 and run_id = $2 and seq < $3)
)
update heard set seq = greatest(seq, $3), lease_until = clock_timestamp() + make_interval(secs => $4),
    tries = case when seq < $3 then 0 else tries end,
    refused_since = case when seq < $3 then null else refused_since end,
    pending = pending and not $5
where plugin = $1 and run_id = $2

-- name: refused
-- The pause doubles with each try. `others`: the plugin has taken another event since it first refused this one.
update heard set pending = true, tries = tries + 1, refused_since = coalesce(refused_since, clock_timestamp()),
    lease_until = clock_timestamp() + make_interval(secs => least($3 * 2.0 ^ least(tries, 30), $4))
where plugin = $1 and run_id = $2
returning tries, coalesce(
    (select took_at from listeners where plugin = $1) > refused_since, false
) as others

-- name: set_aside
with kept as (
    insert into unheard (plugin, run_id, seq, error) values ($1, $2, $3, $4) on conflict do nothing
)
update heard set seq = greatest(seq, $3), tries = 0, refused_since = null where plugin = $1 and run_id = $2

-- name: insert
-- Nothing is begun for a run that has ended, as when a Reset brings its workflow back.
insert into effects (key, run_id, scope, step_no, tool, class, args_hash, state, owner, lease_until, settle)
select $1, $2, $3, $4, $5, $6, $7, 'in_flight', $8, clock_timestamp() + make_interval(secs => $9),
       make_interval(secs => $10)
where not exists (select from runs where run_id = $2 and state not in ('queued', 'running', 'waiting'))
on conflict (key) do nothing

-- name: lock
select *,
       extract(epoch from lease_until - clock_timestamp())::float8 as lease_left,
       extract(epoch from lease_until + settle - clock_timestamp())::float8 as settle_left,
       extract(epoch from greatest(lease_until, deadline) - clock_timestamp())::float8 as deadline_left,
       extract(epoch from clock_timestamp() - first_sent_at)::float8 as since_sent,
       coalesce(deadline < clock_timestamp(), false) as overran,
       exists (select from runs r where r.run_id = effects.run_id
               and r.state not in ('queued', 'running', 'waiting')) as over
from effects where key = $1 for update

-- name: take_over
-- A call that may have been sent keeps sent_at, so that it is not forgotten when this owner is lost before its guard:
-- it is looked up again, or, where it may be repeated, not taken for failed.
update effects set state = 'in_flight', fence = fence + 1, owner = $2, args_hash = $3,
                   lease_until = clock_timestamp() + make_interval(secs => $4),
                   sent_at = case when $5 then sent_at end, deadline = case when $5 then deadline end,
                   first_sent_at = case when $5 then first_sent_at end,
                   result = null, error = null, ended_at = null
where key = $1 returning fence

-- name: renew
-- A row that another transaction has locked is left out: it is being settled or judged, and whoever waits for one row
-- while it holds others can meet a deadlock. It has its turn with the next beat.
-- Also of a call in doubt: as long as its body runs, nobody may say that it was not done.
with held as materialized (
    select e.key from effects e join unnest($1::text[], $2::int[]) as mine (key, fence) on mine.key = e.key
    where e.fence = mine.fence and e.state in ('in_flight', 'in_doubt')
    for update of e skip locked
)
update effects e set lease_until = greatest(e.lease_until, clock_timestamp() + make_interval(secs => $3))
from held where e.key = held.key returning e.key

-- name: ours
select e.fence = $2 and e.state in ('in_flight', 'in_doubt')
       and coalesce(r.state in ('queued', 'running', 'waiting'), true)
from effects e left join runs r on r.run_id = e.run_id where e.key = $1

-- name: release
-- The body has ended: what it sent lands within its settle time.
update effects set lease_until = clock_timestamp(), error = coalesce($3, error)
where key = $1 and fence = $2 and state in ('in_flight', 'in_doubt')

-- name: overrun
update effects set error = $3 where key = $1 and fence = $2 and state in ('in_flight', 'in_doubt')

-- name: guard
-- Locked before it is judged: the clock is read when the row is ours, however long that took.
with held as materialized (
    select key, lease_until from effects where key = $1 and fence = $2 and state = 'in_flight'
    and not exists (select from runs r where r.run_id = effects.run_id
                    and r.state not in ('queued', 'running', 'waiting')) for update
)
update effects e set sent_at = clock_timestamp(), deadline = clock_timestamp() + make_interval(secs => $3),
                     first_sent_at = coalesce(e.first_sent_at, clock_timestamp()), sends = sends + 1, looks = 0
from held where e.key = held.key and held.lease_until > clock_timestamp()

-- name: unsend
-- The row goes on saying that it may have been sent: an earlier owner's request may have landed.
update effects set sends = $3 where key = $1 and fence = $2 and state = 'in_flight'

-- name: complete
with before as (
    select key, state from effects
    where key = $1 and fence = $2 and args_hash = $3 and state in ('in_flight', 'in_doubt')
    for update
)
update effects e set state = 'done', result = $4, error = null, ended_at = clock_timestamp()
from before where e.key = before.key returning before.state

-- name: fail
update effects set state = 'failed', error = $3, result = $4, ended_at = clock_timestamp()
where key = $1 and fence = $2 and state = 'in_flight'

-- name: fail_for_good
-- Like `complete`: it also settles a doubt, as late proof that nothing took effect.
with before as (
    select key, state from effects
    where key = $1 and fence = $2 and args_hash = $3 and state in ('in_flight', 'in_doubt')
    for update
)
update effects e set state = 'failed', error = $4, result = $5, ended_at = clock_timestamp()
from before where e.key = before.key returning before.state

-- name: fail_try
-- A `local_tx` call was rolled back: it has no guard that counts it.
update effects set state = 'failed', error = $3, result = null, sends = sends + 1, ended_at = clock_timestamp()
where key = $1 and fence = $2 and state = 'in_flight'

-- name: fail_pure
-- Once for each attempt, which is an owner of its own: a commit whose answer got lost is made again.
insert into effects (key, run_id, scope, step_no, tool, class, args_hash, state, owner, sends, error, ended_at)
values ($1, $2, $3, $4, $5, 'pure', $6, 'failed', $7, 1, $8, clock_timestamp())
on conflict (key) do update set sends = effects.sends + (effects.owner is distinct from excluded.owner)::int,
                                owner = excluded.owner, error = excluded.error
where effects.class = 'pure' and effects.state = 'failed' and effects.result is null
returning sends

-- name: look_failed
update effects set looks = looks + 1, lease_until = clock_timestamp()
where key = $1 and fence = $2 and state = 'in_flight' returning looks

-- name: fail_unsent
update effects set state = 'failed', error = $3, ended_at = clock_timestamp()
where key = $1 and fence = $2 and state = 'in_flight' and sent_at is null and lease_until < clock_timestamp()

-- name: doubt
update effects set state = 'in_doubt', error = $3
where key = $1 and fence = $2 and state = 'in_flight' and sent_at is not null

-- name: doubt_arguments
-- The completion of the attempt that had other arguments no longer fits the row.
update effects set state = 'in_doubt', args_hash = $2, error = $3, result = null, ended_at = null where key = $1

-- name: insert_done
insert into effects (key, run_id, scope, step_no, tool, class, args_hash, state, owner, sends, result, ended_at)
values ($1, $2, $3, $4, $5, 'pure', $6, 'done', $7, 1, $8, clock_timestamp())
on conflict (key) do update set state = 'done', owner = excluded.owner, sends = effects.sends + 1, error = null,
                                result = excluded.result, ended_at = excluded.ended_at
where effects.class = 'pure' and effects.state = 'failed' and effects.result is null

-- name: result
select result, args_hash, state from effects where key = $1

-- name: recorded_by
select owner = $2 from effects where key = $1

-- name: late
-- Once for each attempt: a commit whose answer got lost is made again.
insert into late_outcomes (key, fence, owner, outcome, tokens, cost_usd)
select $1, $2, $3, $4, $5, $6
where not exists (select from late_outcomes where key = $1 and fence = $2 and owner = $3)

-- name: settle
update effects set state = $2, result = coalesce($3, result), error = $4,
                   ended_at = case when $2 in ('done', 'abandoned') then clock_timestamp() end
where key = $1

-- name: of_run
select * from effects where run_id = $1 order by step_no, created_at

-- name: find
select key, scope, tool, state, class, args_hash from effects
where run_id = $1 and step_no = $2 order by created_at desc limit 1

-- name: last_step
-- A scope is one thread's alone: it begins with the thread's workflow id.
select coalesce(max(step_no), 0) from effects where scope = $1

-- name: left_behind
select e.key, e.run_id, e.step_no, e.tool, e.sent_at is not null as sent, e.fence
from effects e join runs r on r.run_id = e.run_id join threads t on t.id = r.thread_id
where e.state = 'in_flight' and e.lease_until < clock_timestamp() - make_interval(secs => $1)
  and (r.state not in ('queued', 'running', 'waiting')
       or e.scope <> t.tenant || ':' || t.thread || '@' || coalesce(t.scope, t.writer))
limit 100

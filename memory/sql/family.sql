-- name: above
-- The run itself, then who asked for it, up to the top. What was spent is that of the whole tree below each.
with recursive up as (
    select run_id, parent_run_id, 0 as level from runs where run_id = $1
    union all
    select r.run_id, r.parent_run_id, up.level + 1 from up join runs r on r.run_id = up.parent_run_id
)
select r.run_id, r.agent, r.state, r.budget, r.tokens_in + r.tokens_out + coalesce(s.tokens, 0) as tokens,
       r.cost_usd + coalesce(s.cost_usd, 0) as cost_usd, s.run_id is not null as shared
from up join runs r on r.run_id = up.run_id left join spent_below s on s.run_id = up.run_id
order by up.level

-- name: spend
-- Rows are locked from the leaf to the root by everybody, so nobody waits in a circle.
with recursive up as (
    select parent_run_id as run_id, 1 as level from runs where run_id = $1 and parent_run_id is not null
    union all
    select r.parent_run_id, up.level + 1 from up join runs r on r.run_id = up.run_id where r.parent_run_id is not null
)
insert into spent_below (run_id, tokens, cost_usd, unpriced)
select run_id, $2::bigint, $3::numeric, $4::integer from up order by level
on conflict (run_id) do update
set tokens = spent_below.tokens + excluded.tokens, cost_usd = spent_below.cost_usd + excluded.cost_usd,
    unpriced = spent_below.unpriced + excluded.unpriced

-- name: children
select r.run_id, t.thread, r.agent, r.state, r.rounds, r.steps, r.tokens_in + r.tokens_out as tokens, r.cost_usd,
       r.unpriced, r.created_at, r.ended_at, r.error, r.parent_run_id, coalesce(s.tokens, 0) as tokens_below,
       coalesce(s.cost_usd, 0) as cost_usd_below, coalesce(s.unpriced, 0) as unpriced_below,
       (select count(*) from approvals a where a.run_id = r.run_id and a.state = 'pending') as approvals,
       (select count(*) from effects e where e.run_id = r.run_id and e.state = 'in_doubt') as in_doubt
from runs r join threads t on t.id = r.thread_id left join spent_below s on s.run_id = r.run_id
where r.parent_run_id = $1 order by r.parent_step, r.created_at

-- name: owner
select agent, definition, budget from runs where run_id = $1 and definition is not null

-- name: hand_over
-- The run under way speaks as the new agent; what waits behind it on the thread is the new agent's as well.
update runs set agent = $3, definition = $4, budget = case when run_id = $2 then budget else $5 end
where thread_id = $1 and (run_id = $2 or state = 'queued')

-- name: handed_over
-- Asked only for a name that is not the owner's.
select exists (
    select from runs r join events e on e.run_id = r.run_id
    where r.thread_id = $1 and e.kind = 'handed_off' and e.data ->> 'before' = $2
)

-- name: give_scope
update threads set scope = $2 where id = $1 and scope is null

-- name: orphans
-- Runs that go on though the run that asked for them has ended.
select c.run_id, c.parent_run_id, t.tenant, t.thread
from runs c join runs p on p.run_id = c.parent_run_id join threads t on t.id = c.thread_id
where c.state in ('queued', 'running', 'waiting') and p.state not in ('queued', 'running', 'waiting')
  and ($1::uuid is null or c.run_id > $1)
order by c.run_id limit $2

-- name: waiting
-- What waits for a person in a run and in those below it, nearest first.
with recursive below as (
    select run_id, 0 as level from runs where run_id = $1
    union all
    select r.run_id, below.level + 1 from below join runs r on r.parent_run_id = below.run_id
), waits as (
    select run_id, step_no, tool, 'approval' as kind, null as error from approvals where state = 'pending'
    union all
    select run_id, step_no, tool, 'in_doubt', error from effects where state = 'in_doubt'
)
select below.run_id, r.agent, t.thread, w.step_no, w.tool, w.kind, w.error
from below join waits w on w.run_id = below.run_id join runs r on r.run_id = below.run_id
join threads t on t.id = r.thread_id
order by below.level, r.created_at, w.step_no

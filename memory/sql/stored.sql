-- name: result
-- By way of the slot that names it: a handle from another thread, however it was come by, leads nowhere.
select substring(b.body from $5 for coalesce($6, 2147483647 - $5)) as part, b.bytes
from messages m
join threads t on t.id = m.thread_id
join blobs b on b.id = m.blob and b.tenant = t.tenant
where t.tenant = $1 and t.thread = $2 and m.run_id = $3 and m.role = 'tool' and m.blob = $4
limit 1

-- name: runs
select r.run_id, t.thread, r.agent, r.state, r.rounds, r.steps, r.tokens_in + r.tokens_out as tokens, r.cost_usd,
       r.created_at, r.started_at, r.ended_at, r.answer_seq is not null as answered,
       (select count(*) from approvals a where a.run_id = r.run_id and a.state = 'pending') as approvals_pending,
       (select count(*) from effects e where e.run_id = r.run_id and e.state = 'in_doubt') as calls_in_doubt,
       (select e.kind from events e where e.run_id = r.run_id order by e.seq desc limit 1) as last_event,
       (select e.at from events e where e.run_id = r.run_id order by e.seq desc limit 1) as last_event_at
from runs r join threads t on t.id = r.thread_id
where t.tenant = $1 and r.run_id between $2 and $3 limit 2

-- name: by_id
select r.*, t.tenant, t.thread, t.writer, coalesce(s.tokens, 0) as tokens_below, coalesce(s.cost_usd, 0) as cost_usd_below,
       coalesce(s.unpriced, 0) as unpriced_below
from runs r join threads t on t.id = r.thread_id left join spent_below s on s.run_id = r.run_id where r.run_id = $1

-- name: by_prefix
select r.run_id from runs r join threads t on t.id = r.thread_id
where t.tenant = $3 and r.run_id between $1 and $2 limit 2

-- name: lock
select r.run_id, r.state, r.message, r.message_id, r.started_at, r.agent, r.definition, r.scope, r.base, r.rounds, r.steps,
       r.tokens_in + r.tokens_out as tokens, r.cost_usd, r.unpriced, r.budget, m.seq from runs r
left join messages m on m.id = r.message where r.run_id = $1 for update of r

-- name: lock_all
-- In the order of the ids, so that two who lock several wait for each other and not in a circle.
select from runs where run_id = any($1::uuid[]) order by run_id for update

-- name: insert_message
insert into messages (thread_id, run_id, role, body, tokens) values ($1, $2, 'user', $3, $4) returning id

-- name: insert
insert into runs (run_id, thread_id, message_id, message, accept_no, agent, definition, mode, state, notify, error,
                  budget, parent_run_id, root_run_id, parent_step, depth, ended_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
        case when $9 = 'refused' then clock_timestamp() end)

-- name: open_of_thread
select r.run_id, r.message_id, r.agent, r.definition, r.mode, r.notify, r.state, r.started_at, r.rounds, r.steps,
       r.tokens_in + r.tokens_out as tokens, r.cost_usd, r.unpriced, r.budget, r.parent_run_id, r.depth
from runs r
where r.thread_id = $1 and r.state in ('queued', 'running', 'waiting')
order by r.started_at is null, r.accept_no

-- name: of_message
select r.run_id, r.message_id, r.agent, r.definition, r.mode, r.notify, r.state, r.started_at, r.rounds, r.steps,
       r.tokens_in + r.tokens_out as tokens, r.cost_usd, r.unpriced, r.budget, r.parent_run_id, r.depth
from runs r
where r.run_id = $1

-- name: has_ended
select exists (select from runs where run_id = $1 and state not in ('queued', 'running', 'waiting'))

-- name: begin
update runs set state = 'running', started_at = coalesce(started_at, clock_timestamp()), scope = $2, base = $3
where run_id = $1

-- name: merge
update runs set state = 'merged', merged_into = $2, started_at = clock_timestamp(), ended_at = clock_timestamp()
where run_id = $1

-- name: set_state
update runs set state = $2 where run_id = $1 and state in ('queued', 'running', 'waiting')

-- name: hold
-- A statement of its own: what the next one sees is what others had committed by the time this one had the row.
select from runs where run_id = $1 for no key update

-- name: resume
-- A person has decided: the run goes on, unless another decision is still wanted.
update runs set state = 'running'
where run_id = $1 and state = 'waiting'
  and not exists (select from approvals where run_id = $1 and state = 'pending')
  and not exists (select from effects where run_id = $1 and state = 'in_doubt')

-- name: add_usage
update runs set tokens_in = tokens_in + $2, tokens_out = tokens_out + $3, cost_usd = cost_usd + $4,
                rounds = rounds + $5, unpriced = unpriced + $6
where run_id = $1

-- name: end
update runs set state = $2, error = $3, answer_seq = $4, steps = $5, ended_at = clock_timestamp()
where run_id = $1 and state in ('queued', 'running', 'waiting')

-- name: listing
select r.run_id, t.thread, r.agent, r.state, r.rounds, r.steps, r.tokens_in + r.tokens_out as tokens, r.cost_usd,
       r.unpriced, r.created_at, r.ended_at, r.error, r.parent_run_id, coalesce(s.tokens, 0) as tokens_below,
       coalesce(s.cost_usd, 0) as cost_usd_below, coalesce(s.unpriced, 0) as unpriced_below,
       (select count(*) from approvals a where a.run_id = r.run_id and a.state = 'pending') as approvals,
       (select count(*) from effects e where e.run_id = r.run_id and e.state = 'in_doubt') as in_doubt
from runs r join threads t on t.id = r.thread_id left join spent_below s on s.run_id = r.run_id
where t.tenant = $1 and ($2::text is null or r.state = $2) and ($3::text is null or t.thread = $3)
order by r.created_at desc, r.accept_no desc limit $4

-- name: brief
select r.run_id, r.state, r.tokens_in + r.tokens_out + coalesce(s.tokens, 0) as tokens,
       r.cost_usd + coalesce(s.cost_usd, 0) as cost_usd, r.unpriced + coalesce(s.unpriced, 0) as unpriced, r.ended_at, r.error
from runs r left join spent_below s on s.run_id = r.run_id where r.run_id = any ($1::uuid[])

-- name: answer
select m.body from runs r join messages m on m.thread_id = r.thread_id and m.seq = r.answer_seq where r.run_id = $1

-- name: text
select m.body from runs r join messages m on m.id = r.message where r.run_id = $1

-- name: known_agents
select name, definition from agents where task_queue = $1 order by name

-- name: queues_of_agent
select task_queue from agents where name = $1 order by task_queue

-- name: agent
select definition from agents where name = $1 and task_queue = $2

-- name: definitions
select hash, body from definitions where hash = any ($1)

-- name: put_definition
insert into definitions (hash, body) values ($1, $2) on conflict (hash) do nothing

-- name: publish_agent
insert into agents (name, definition, task_queue) values ($1, $2, $3)
on conflict (name, task_queue) do update set definition = excluded.definition, updated_at = clock_timestamp()

-- name: open_threads
select t.id, t.tenant, t.thread, t.writer, t.task_queue from threads t
where t.id in (
    select distinct thread_id from runs
    where state in ('queued', 'running', 'waiting') and thread_id > $1 order by thread_id limit $2
)
order by t.id

-- name: has_open
select exists (select from runs where thread_id = $1 and state in ('queued', 'running', 'waiting'))

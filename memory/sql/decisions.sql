-- name: ask
-- A decision there is that of another call (`said` was asked before): an earlier chain's, which had this step's number.
insert into approvals (run_id, step_no, call_id, tool, args_hash, policy, state)
values ($1, $2, $3, $4, $5, $6, 'pending')
on conflict (run_id, step_no) do update
set call_id = excluded.call_id, tool = excluded.tool, args_hash = excluded.args_hash, policy = excluded.policy,
    state = 'pending', args = null, decision_id = null, asked_at = clock_timestamp(), decided_at = null
where approvals.state <> 'pending' or approvals.call_id <> excluded.call_id

-- name: said
select p.state, p.args, p.decision_id, a.detail->>'reason' as reason
from approvals p join audit a using (decision_id)
where p.run_id = $1 and p.step_no = $2 and p.call_id = $3 and p.args_hash = $4 and p.policy = $5
  and (a.detail->>'seq')::bigint = $6 and p.state in ('approved', 'rejected') and a.accepted

-- name: decide
update approvals set state = $3, args = $4, decision_id = $5, decided_at = clock_timestamp()
where run_id = $1 and step_no = $2 and call_id = $6 and state = 'pending'

-- name: void
update approvals set state = 'void', decided_at = clock_timestamp() where run_id = any($1::uuid[]) and state = 'pending'

-- name: edited
select args from approvals where run_id = $1 and step_no = $2

-- name: of_run
select step_no, call_id, tool, args_hash, policy, state, args, decision_id, asked_at, decided_at
from approvals where run_id = $1 order by step_no

-- name: audit
insert into audit (decision_id, run_id, step_no, action, actor, verified, accepted, detail)
values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (decision_id) do nothing

-- name: free
-- The row of a word that a thread refused moves to an id of its own; it is found by `refused` as before.
update audit
set decision_id = case
    when exists (select from audit other where other.decision_id = audit.detail->>'refused') then gen_random_uuid()::text
    else detail->>'refused'
end
where decision_id = $1 and not accepted and detail->>'refused' is not null

-- name: audited
select accepted, detail, run_id, step_no, action from audit where decision_id = $1

-- name: audit_of_run
select decision_id, step_no, action, actor, verified, accepted, detail, at from audit where run_id = $1 order by id

-- name: ask
insert into approvals (run_id, step_no, call_id, tool, args_hash, policy, state)
values ($1, $2, $3, $4, $5, $6, 'pending') on conflict (run_id, step_no) do nothing

-- name: decide
update approvals set state = $3, args = $4, decision_id = $5, decided_at = clock_timestamp()
where run_id = $1 and step_no = $2 and state = 'pending'

-- name: void
update approvals set state = 'void', decided_at = clock_timestamp() where run_id = $1 and state = 'pending'

-- name: edited
select args from approvals where run_id = $1 and step_no = $2

-- name: of_run
select step_no, call_id, tool, args_hash, policy, state, args, decision_id, asked_at, decided_at
from approvals where run_id = $1 order by step_no

-- name: audit
insert into audit (decision_id, run_id, step_no, action, actor, verified, accepted, detail)
values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (decision_id) do nothing

-- name: audited
select accepted, detail, action, step_no from audit where decision_id = $1

-- name: audit_of_run
select decision_id, step_no, action, actor, verified, accepted, detail, at from audit where run_id = $1 order by id

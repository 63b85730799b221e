-- Agents that ask other agents, and what a tree of runs has spent.

-- parent_run_id is the run whose call this one answers, root_run_id the top of its tree; both null at the top itself.
-- budget is what the run may spend: it stays when the conversation moves to an agent with another definition.
alter table runs add column parent_run_id uuid,
                 add column root_run_id   uuid,
                 add column parent_step   int,
                 add column depth         int not null default 0,
                 add column budget        json;
create index runs_parent on runs (parent_run_id) where parent_run_id is not null;

-- The effect scope of a thread that a step of another run gave it, so that whoever works on it next meets the same rows.
alter table threads add column scope text;

-- What all runs below a run have spent; no row: nothing. A table of its own, so that children that add to it at the same
-- time do not wait for what locks the run itself.
create table spent_below (
    run_id   uuid primary key,
    tokens   bigint not null,
    cost_usd numeric(18, 9) not null
);

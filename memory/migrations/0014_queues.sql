-- Several fleets of workers, each with a task queue of its own, may share a database: a thread stays with the fleet
-- that works on it, and an agent is known to the fleet that has loaded it. Null: not claimed since this migration.
alter table threads add column task_queue text;

-- Workers write their agents anew whenever they start.
delete from agents;
alter table agents drop constraint agents_pkey;
alter table agents add column task_queue text not null;
alter table agents add primary key (name, task_queue);

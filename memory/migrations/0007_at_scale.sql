-- What is looked up at 100,000 messages or effects, and what a periodic collection keeps.

create index effects_scope on effects (scope, step_no);                         -- the last step of a thread's scope
create index messages_open on messages (thread_id, seq) where body is null;     -- open slots of a thread
create index messages_blob on messages (blob) where blob is not null;           -- whether a blob is still referenced

-- Run id of the workflow execution that wrote to the thread last. Whether a person ended it is asked of Temporal by this
-- id: listings of workflows lag behind, and the newest execution may be another one.
alter table threads add column execution text;

-- Periodic work of which one worker at a time does the next part: when it was taken last, and how far it has come.
create table chores (
    name   text primary key,
    at     timestamptz not null,
    cursor text not null default ''
);

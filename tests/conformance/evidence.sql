-- What a campaign writes down for its auditor, in the same database, beside what the product writes.
create schema evidence;

-- The effects of the `local_tx` tool. No constraint: it would take the same row twice.
create table public.notes (id bigint generated always as identity, key text, run text, n text);

-- One of each time that something was said: what was said when the connection broke is not said twice.
create table evidence.said (token uuid primary key);

create table evidence.faults (
    id bigint generated always as identity primary key, kind text not null,
    at timestamptz not null, until timestamptz not null, -- equal for a kill
    pids int[] not null default '{}',                     -- workers it hit
    threads text[] not null default '{}',                 -- threads whose workflow it hit
    note text not null default ''
);
-- When the machine had no time: workers then miss their heartbeats with nobody's doing.
create table evidence.starved (at timestamptz not null, until timestamptz not null);
-- Every message as it was sent; one that was sent again is here again. name is the message id, and the text begins with
-- it (null: the name is the text). expected has the states in which its run may end, such as done|merged. What a
-- schedule sent has a message_id of its own.
create table evidence.sent (
    id bigint generated always as identity primary key, name text not null, thread text not null, kind text not null,
    run_id uuid not null, expected text not null, remembers boolean not null, text text, message_id text
);
-- What runs ask other agents, if they come to that: the name of each message, who is asked, how that run may end.
create table evidence.offspring (name text not null, agent text not null, expected text not null);
-- Schedules, as they stood when all was over: times are the multiples of every, in seconds, from start to end.
create table evidence.schedules (
    name text not null, thread text, every int not null, overlap text not null, start_at timestamptz not null,
    end_at timestamptz not null, fired int not null, skipped int not null, missed int not null
);
-- From when until when a tool's servers all described it otherwise than was accepted.
create table evidence.suspended (tool text not null, at timestamptz not null, until timestamptz not null);
-- Processes of the product that ended without a signal of the suite's, and were started again as a supervisor would.
-- serving: it had been ready. code: its exit code, or minus the signal.
create table evidence.exits (
    at timestamptz not null, pid int not null, role text not null, serving boolean not null, code int not null,
    word text not null
);
-- Threads with a run that had not ended when its client's patience had.
create table evidence.unfinished (thread text not null);
-- Processes that were left when the workers that had started them were gone.
create table evidence.leftovers (process text not null);
-- What a person said: approve, reject, edit (approve with other arguments), signal (approve by signal), stop. taken says
-- that somebody took the word; without, it may have been heard all the same.
create table evidence.words (
    id bigint generated always as identity primary key, at timestamptz not null, until timestamptz not null,
    run_id uuid not null, step_no int, word text not null, args text, decision_id text, taken boolean not null
);
create table evidence.asked (run text not null, tool text not null, n text not null);
create table evidence.model_calls (
    at timestamptz not null, run text not null, round int not null, fault boolean not null, agent text
);
-- Events as clients saw them who broke off and came back: each position of each watcher.
create table evidence.watched (run_id uuid not null, watcher int not null, position int not null, seq bigint not null);
create table evidence.memories (id text not null, run_id text, text text not null);
create table evidence.replays (workflow_id text not null, run_id text not null, error text, hangs integer not null);

-- The ledger as it changes, written by the database itself; renewals of a lease alone are left out.
create table evidence.ledger (
    id bigint generated always as identity primary key, at timestamptz not null default clock_timestamp(),
    key text, run_id uuid, step_no int, tool text, class text, state text, fence int, owner text, sent_at timestamptz,
    error text
);
create function evidence.log_ledger() returns trigger language plpgsql as $$
begin
    insert into evidence.ledger (key, run_id, step_no, tool, class, state, fence, owner, sent_at, error)
    values (new.key, new.run_id, new.step_no, new.tool, new.class, new.state, new.fence, new.owner, new.sent_at, new.error);
    return null;
end $$;
create trigger log_insert after insert on holdfast.effects for each row execute function evidence.log_ledger();
create trigger log_update after update on holdfast.effects for each row
when ((old.state, old.fence, old.owner, old.sent_at) is distinct from (new.state, new.fence, new.owner, new.sent_at))
execute function evidence.log_ledger();

-- When a model's reply was recorded, as far as anybody else can know: this trigger is deferred to the commit. Rows of a
-- transaction have earlier times than it, by minutes if its worker is frozen in it.
create table evidence.recorded (at timestamptz not null default clock_timestamp(), key text not null, owner text);
create function evidence.log_recorded() returns trigger language plpgsql as $$
begin
    insert into evidence.recorded (key, owner) values (new.key, new.owner);
    return null;
end $$;
create constraint trigger log_recorded after insert or update on holdfast.effects deferrable initially deferred
for each row when (new.tool = 'model' and new.state = 'done') execute function evidence.log_recorded();

-- Each attempt that was given a model call: after this it looks for the record, and buys only if there is none.
create table evidence.given (
    id bigint generated always as identity primary key, at timestamptz not null default clock_timestamp(),
    key text not null, owner text not null
);
create function evidence.log_given() returns trigger language plpgsql as $$
begin
    insert into evidence.given (key, owner) values (new.key, new.owner);
    return null;
end $$;
create trigger log_given after insert on holdfast.model_leases for each row execute function evidence.log_given();
create trigger log_given_again after update on holdfast.model_leases for each row
when (old.owner is distinct from new.owner) execute function evidence.log_given();

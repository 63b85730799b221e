-- Model calls under way: while its owner lives, nobody else makes the call. Not logged: after a crash of PostgreSQL the
-- table is empty, and no owner could have kept its lease through that anyway.
create unlogged table model_leases (
    key         text primary key,
    owner       text not null,
    lease_until timestamptz not null
);

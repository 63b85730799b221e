#!/usr/bin/env bash
# What the entrypoint of the postgres image does on an empty volume, then its command.
set -euo pipefail
export PGDATA=/var/lib/postgresql/18/docker
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") --auth=scram-sha-256 >/dev/null
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
    # A server that only this script reaches makes the database, as in the image.
    pg_ctl -w -o "-c listen_addresses='' -c unix_socket_directories=/run" start >/dev/null
    PGPASSWORD=$POSTGRES_PASSWORD psql -h /run -U "$POSTGRES_USER" -d postgres -qc "create database $POSTGRES_DB"
    pg_ctl -w -m fast stop >/dev/null
fi
exec "$@" -c unix_socket_directories=/run

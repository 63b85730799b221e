"""What the embedded stack is given: a role of PostgreSQL for its workers, and a Temporal binary."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from holdfast.errors import TemporalBinaryNotFound
from holdfast.server import start_detached, stop_stack
from holdfast.server.postgres import EmbeddedPostgres, binaries
from holdfast.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
SERVER = (sys.executable, str(Path(__file__).with_name("_stack_server.py")))


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Return settings of a small stack; end what a test left."""
    yield load_settings(home=tmp_path / "home", workers=1)
    stop_stack(tmp_path / "home")


async def test_workers_and_clients_are_no_superuser(settings: Settings) -> None:
    """They own their database and no more; one that a superuser made is handed over at the next start."""
    info = start_detached(settings, command=SERVER)
    admin_url = EmbeddedPostgres(settings.home, urlsplit(info.database_url).port or 0).admin_url
    for _ in range(2):
        conn = await asyncpg.connect(info.database_url)
        role = "select rolsuper or rolcreaterole or rolcreatedb or rolreplication from pg_roles where rolname = user"
        assert await conn.fetchval(role) is False
        owner = "select pg_get_userbyid(datdba) from pg_database where datname = current_database()"
        assert await conn.fetchval(owner) == await conn.fetchval("select user")
        not_ours = (
            "select count(*) from pg_class where relnamespace = 'holdfast'::regnamespace and relowner <> $1::regrole"
        )
        assert await conn.fetchval(not_ours, await conn.fetchval("select user")) == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute("copy (select 1) to program 'true'")
        await conn.close()
        admin = await asyncpg.connect(admin_url)
        await admin.execute("reassign owned by holdfast_owner to holdfast")
        await admin.execute("alter database holdfast owner to holdfast")
        await admin.close()
        stop_stack(settings.home)
        info = start_detached(settings, command=SERVER)


async def test_composes_script_makes_the_owner_and_hands_the_database_over(settings: Settings) -> None:
    """`deploy/database.sh` on an older stack's database, twice: the role owns all of it and has the password given."""
    info = start_detached(settings, command=SERVER)
    admin_url = EmbeddedPostgres(settings.home, urlsplit(info.database_url).port or 0).admin_url
    admin = await asyncpg.connect(admin_url)
    await admin.execute("reassign owned by holdfast_owner to holdfast")
    parts = urlsplit(admin_url)
    environment = {
        "PATH": f"{binaries()}:{os.environ['PATH']}",
        "PGHOST": str(parts.hostname),
        "PGPORT": str(parts.port),
        "PGUSER": str(parts.username),
        "PGPASSWORD": str(parts.password),
        "OWNER_PASSWORD": "it's new",
    }
    for _ in range(2):
        script = await asyncio.create_subprocess_exec("sh", str(ROOT / "deploy" / "database.sh"), env=environment)
        assert await script.wait() == 0
        conn = await asyncpg.connect(
            host=parts.hostname, port=parts.port, user="holdfast_owner", password="it's new", database="holdfast"
        )
        not_ours = "select count(*) from pg_tables where schemaname = 'holdfast' and tableowner <> user"
        assert await conn.fetchval(not_ours) == 0
        await conn.execute("create table holdfast.mine (id int); drop table holdfast.mine")
        assert await conn.fetchval("select rolsuper from pg_roles where rolname = user") is False
        await conn.close()
    await admin.close()


def test_no_temporal_binary(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No binary, no network, no Go: the error says what was tried and what to do, and nothing is left."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # the download must fail, with or without a network
    with pytest.raises(TemporalBinaryNotFound) as caught:
        start_detached(settings, command=SERVER)
    assert "Go is not installed" in str(caught.value)
    assert "HOLDFAST_TEMPORAL_BINARY" in str(caught.value)
    assert not (settings.home / "stack.json").exists()

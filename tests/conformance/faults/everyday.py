"""Faults of what agents use each day: a worker killed with sub-agents at work, MCP servers and their guards killed."""

from __future__ import annotations

import os
import random
import signal
from contextlib import suppress
from typing import ClassVar

from tests.conformance.faults.struck import Struck
from tests.conformance.offices import Office
from tests.conformance.stage import Stage, now

__all__ = ["KillDesk", "KillGuard", "KillOffice", "KillWithChildren"]

_AT_WORK = """
select split_part(e.owner, '.', 1)::int as pid from holdfast.effects e join holdfast.runs r using (run_id)
where e.state = 'in_flight' and r.parent_run_id is not null and e.lease_until > clock_timestamp()
"""


class KillWithChildren:
    """SIGKILL of a worker that has a call of a sub-agent in hand; another one is started."""

    name: ClassVar[str] = "kill -9 of a worker with sub-agents at work"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Kill one."""
        busy = {row["pid"] for row in await stage.rows(_AT_WORK)}
        found = [born for born in stage.workers() if born.pid in busy]
        if not found:
            return None
        struck = chance.choice(found)
        at = await stage.reap(struck)
        await stage.bear()
        return Struck(at, at, [struck.pid])


def _kill(pid: int | None) -> bool:
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def _office(stage: Stage, chance: random.Random) -> Office | None:
    workers = {born.pid for born in stage.workers()}
    found = [each for each in stage.offices.under() if each.worker in workers and each.server is not None]
    return chance.choice(found) if found else None


class KillOffice:
    """SIGKILL of the MCP server of a worker; the worker starts another. Calls of its tools may be in doubt."""

    name: ClassVar[str] = "kill -9 of an MCP server"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Kill one."""
        office, at = _office(stage, chance), now()
        if office is None or not _kill(office.server):
            return None
        return Struck(at, now(), [office.worker], note=f"of worker {office.worker}")


class KillGuard:
    """SIGKILL of the guard between a worker and its MCP server, which goes on or ends; no server may be left."""

    name: ClassVar[str] = "kill -9 of an MCP server's guard"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Kill one."""
        office, at = _office(stage, chance), now()
        if office is None or not _kill(office.guard):
            return None
        return Struck(at, now(), [office.worker], note=f"of worker {office.worker}")


class KillDesk:
    """SIGKILL of the MCP server that all workers reach by HTTP; it is started again at once."""

    name: ClassVar[str] = "kill -9 of an MCP server reached by HTTP"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Kill it."""
        if stage.offices.changing.locked():
            return None
        async with stage.offices.changing:
            at = now()
            await stage.offices.kill_desk()
            return Struck(at, now(), [born.pid for born in stage.live])

"""The faults: each kind a small class with one method. What strikes whom, when and how long comes from one generator.

A fault strikes a `Stage` and returns what it did, which the drive writes down for the auditor. A new kind is a class in
one of the files here and an entry in `SMOKE` or `CAMPAIGN`.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.conformance.faults import commits, everyday, processes, servers, switchover, workflows
from tests.conformance.faults.struck import Fault, Struck

__all__ = ["CAMPAIGN", "SMOKE", "Fault", "Struck"]

# Each round of faults takes every entry once, in an order of chance.
SMOKE: Sequence[Fault] = (
    *(processes.Kill() for _ in range(6)),
    everyday.KillWithChildren(),
    everyday.KillWithChildren(),
    everyday.KillOffice(),
    everyday.KillGuard(),
    everyday.KillDesk(),
    processes.Freeze(),
    processes.Freeze(),
    processes.Roll(),
    processes.Leave(),
    processes.ClockJump(),
    processes.KillMemory(),
    processes.FreezeMemory(),
    processes.MemoryClockJump(),
    commits.CutInCommit(),
    commits.KillInCommit(),
    commits.FreezeInCommit(),
    commits.KillInHandOff(),
    commits.KillInQuestion(),
    servers.DatabaseCrash(),
    servers.DatabaseGone(),
    servers.DatabaseCut(),
    servers.DatabaseSlow(),
    servers.TemporalKill(),
    servers.TemporalGone(),
    servers.TemporalCut(),
    servers.TemporalSlow(),
    servers.SupervisorKill(),
    servers.ModelGone(),
    switchover.Failover(),
    switchover.Rotation(),
    workflows.Terminate(),
    workflows.Reset(),
    workflows.ResetOlder(),
)
CAMPAIGN: Sequence[Fault] = (
    *SMOKE,
    *(processes.Kill() for _ in range(2)),
    processes.Freeze(longest=9.0),
    processes.FreezeMemory(longest=20.0),
    servers.DatabaseCrash(longest=12.0),
    servers.DatabaseGone(longest=20.0),
    servers.TemporalKill(longest=12.0),
    servers.TemporalGone(longest=20.0),
    servers.ServersRestart(),
    workflows.ResetOlder(),
)

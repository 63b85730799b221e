"""What a thread's workflow knows, and carries over continue-as-new."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from holdfast.contracts.agents import Budget
from holdfast.contracts.base import Contract, EffectClass, Mode
from holdfast.contracts.messages import Decision, Message, Resolution


class Call(Contract):
    """One tool call of the round under way."""

    step_no: int
    call_id: str
    tool: str
    seq: int = Field(description="thread slot of its result")
    effect: EffectClass = "once"
    args: str | None = Field(None, description="JSON text, when short; else it is read from Postgres")
    args_hash: str = ""
    epoch: int = 0
    memory_queue: bool = False
    timeout: float = 60.0
    settle: float = 0.0
    error: bool = Field(False, description="malformed: its slot already holds the error the model will see")
    state: Literal["ready", "approval", "deciding", "rejected", "in_doubt", "conflict", "resolving", "done"] = "ready"
    edited: bool = False
    in_conflict: bool = Field(False, description="its ledger row holds other arguments, as after a Reset")
    reuse: bool = Field(False, description="a person chose to take the stored result of other arguments")
    pending: Decision | None = None
    resolution: Resolution | None = None


class Run(Contract):
    """One accepted message on its way to its answer."""

    run_id: str
    message_id: str
    agent: str
    definition: str = Field("", description="hash of the agent's definition")
    budget: Budget = Budget()
    memory: bool = False
    mode: Mode = "next"
    notify: str | None = None
    begun: bool = False
    recalled: bool = False
    recall_step: int | None = None
    compact: bool = Field(False, description="the window is nearly full: compact before the next model call")
    rounds: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    calls: list[Call] = []
    asked: bool = Field(False, description="the approvals of this round are mirrored in Postgres")
    loop_hash: str = ""
    loop_count: int = 0
    steps: int = 0
    stop: str | None = None


class Limits(Contract):
    """What the settings say to the workflow, recorded with the first admission; seconds, already scaled."""

    lease: float = 2.0
    linger: float = 10.0
    memory_wait: float = 2.0
    model_timeout: float = 600.0
    roll_after: int = 4000
    memory_queue: str = "holdfast-memory"
    task_timeout: float = 3.0


class Carry(Contract):
    """All that a thread's workflow carries over continue-as-new."""

    writer: str = Field("", description="first execution run id of the chain")
    started: datetime | None = None
    opened: bool = False
    step_no: int = 0
    inbox: list[Message] = []
    queue: list[Run] = []
    current: Run | None = None
    known: list[str] = []
    limits: Limits = Limits()
    executions: int = 0


class ThreadStart(Contract):
    """Input of AgentWorkflow; a client sends `{}`. The start names no message: the update does."""

    carry: Carry | None = None


class ThreadState(Contract):
    """Answer of the query `state`: what the workflow knows, without the conversation."""

    current: Run | None = None
    queued: list[str] = []
    accepted: list[str] = []
    step_no: int = 0
    executions: int = 0

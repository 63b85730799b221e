"""What a thread's workflow knows, and carries over continue-as-new."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from holdfast.contracts.agents import Budget
from holdfast.contracts.base import MOST_STEPS, Contract, EffectClass, Mode
from holdfast.contracts.messages import Decision, Message, Resolution, StopRequest

_RUN_ID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


class Call(Contract):
    """One tool call of the round under way."""

    step_no: int
    call_id: str
    tool: str
    seq: int = Field(description="thread slot of its result")
    effect: EffectClass = "once"
    args: str | None = Field(default=None, description="JSON text, when short; else it is read from Postgres")
    args_hash: str = ""
    memory_queue: bool = False
    timeout: float = 60.0
    settle: float = 0.0
    error: bool = Field(default=False, description="malformed: its slot already holds the error the model will see")
    state: Literal[
        "ready", "approval", "deciding", "rejected", "in_doubt", "resolving", "child", "answered", "done"
    ] = "ready"
    edited: bool = False
    pending: Decision | None = None
    resolution: Resolution | None = None
    failed: str = Field(default="", description="preview of the error with which its tool failed")
    shown: str = Field(
        default="", description="for long arguments: the excerpt that the details of a waiting approval show"
    )
    settled: bool = Field(
        default=False, description="late proof arrived before the workflow knew that the call was in doubt"
    )
    agent: str | None = Field(default=None, description="the agent that is asked, or takes the conversation over")
    handoff: bool = False
    child: str | None = Field(
        default=None, description="run of the agent that was asked, once it may have been started"
    )
    heard: bool = Field(default=False, description="that run has told that it ended")
    handed: bool = Field(default=False, description="the conversation was moved by this call")


class Run(Contract):
    """One accepted message on its way to its answer."""

    run_id: str
    message_id: str
    agent: str
    definition: str = Field(default="", description="hash of the agent's definition")
    budget: Budget = Budget()
    memory: bool = False
    mode: Mode = "next"
    notify: str | None = None
    begun: bool = False
    recalled: bool = False
    recall_step: int | None = None
    compact: bool = Field(default=False, description="the window is nearly full: compact before the next model call")
    rounds: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    unpriced: int = Field(default=0, description="model calls whose price is unknown")
    calls: list[Call] = []
    asked: bool = Field(default=False, description="the approvals of this round are mirrored in Postgres")
    loop_hash: str = ""
    loop_count: int = 0
    steps: int = 0
    stop: str | None = None
    stop_request: StopRequest | None = Field(
        default=None, description="the request that stops the run, not yet audited"
    )
    parent: str | None = Field(default=None, description="the run whose call this one answers")
    depth: int = Field(default=0, description="how many runs are above it")
    preview: str = Field(default="", description="the first line of its message, as shown")
    failures: str = Field(default="", description="the tools that failed in the previous round, as shown")


class ThreadResult(Contract):
    """Result of AgentWorkflow: how the last run of this execution ended, in ids and previews."""

    run_id: str = Field(description="the last run")
    agent: str = Field(description="who answered")
    state: str = Field(description="how it ended")
    question: str = Field(default="", description="the first line of its message, at most 64 characters")
    answer: str = Field(default="", description="the beginning of its answer, at most 64 characters")
    error: str | None = Field(default=None, description="why there is no answer, at most 200 characters")


class Limits(Contract):
    """What the settings say to the workflow, recorded with the first admission; seconds, already scaled."""

    lease: float = 2.0
    linger: float = 10.0
    memory_wait: float = 2.0
    model_timeout: float = 600.0
    roll_after: int = 4000
    memory_queue: str = "holdfast-memory"
    task_queue: str | None = None  # not `workflow.info()`: a replay has a task queue of its own there
    task_timeout: float = 3.0
    hook_time: float = 0.0
    linger_asked: float = 10.0
    look_after: float = 600.0


class ChildStart(Contract):
    """How a run asks another agent: a message for a thread of its own, and where it belongs. Signal `child` as well."""

    message: Message
    scope: str = Field(pattern=r"^[0-9a-f]{64}$", description="effect scope of the thread: the key of the asking step")
    parent: str = Field(pattern=_RUN_ID, description="the run that asks")
    step_no: int = Field(ge=0, le=MOST_STEPS, description="its step")


class Carry(Contract):
    """All that a thread's workflow carries over continue-as-new."""

    writer: str = Field(default="", description="first execution run id of the chain")
    started: datetime | None = None
    opened: bool = False
    step_no: int = 0
    inbox: list[Message] = []
    queue: list[Run] = []
    current: Run | None = None
    known: list[str] = []
    limits: Limits = Limits()
    executions: int = 0
    scope: str = Field(default="", description="effect scope of the thread, where another run gave it one")
    child: ChildStart | None = Field(default=None, description="what another run asks, until it is admitted")
    last: ThreadResult | None = Field(default=None, description="how the last run ended")
    brief: bool = Field(
        default=False, description="a workflow asked for the last run, so no further message is expected"
    )
    child_stop: str | None = Field(default=None, description="that one is to stop as soon as it is admitted")
    child_stop_request: StopRequest | None = Field(default=None, description="the request to stop the child")


class ThreadStart(Contract):
    """Input of AgentWorkflow; a client sends `{}`. Only a run that asks another agent names a message here."""

    carry: Carry | None = None
    child: ChildStart | None = None


class ThreadState(Contract):
    """Answer of the query `state`: what the workflow knows, without the conversation."""

    current: Run | None = Field(default=None, description="the run under way")
    queued: list[str] = Field(default=[], description="ids of the runs behind it")
    accepted: list[str] = Field(default=[], description="ids of messages that are not stored yet")
    step_no: int = Field(default=0, description="steps taken on this thread")
    executions: int = Field(default=0, description="how often the workflow has continued as new, plus one")

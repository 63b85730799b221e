"""Inputs and outputs of activities, and of the short workflows around memory."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from holdfast.contracts.agents import Budget
from holdfast.contracts.base import Contract, EffectClass, RunState
from holdfast.contracts.messages import Ask, Decision, Message, Resolution, StopRequest
from holdfast.contracts.state import Call, ChildStart, Limits, Run


class Admit(Contract):
    """Claim the thread, store messages as runs; with no message, only open the thread and list what is left."""

    writer: str
    started: datetime
    messages: list[Message] = []
    open: bool = False
    child: ChildStart | None = Field(default=None, description="where the message of its id belongs")


class Admitted(Contract):
    """Runs to queue, in order of acceptance. Known and refused messages are not among them."""

    runs: list[Run] = []
    ended: list[Run] = Field(default=[], description="known runs that ended already, to notify whoever asked again")
    limits: Limits | None = Field(default=None, description="with the first admission of an execution chain")
    scope: str = Field(default="", description="effect scope of the thread, where another run gave it one")


class StepRef(Contract):
    """Which step of which run, and who writes. Tenant and thread are in the workflow id."""

    writer: str
    run_id: str
    step_no: int
    scope: str = Field(default="", description="of its effects; empty: the thread's own")


class BeginRun(StepRef):
    """Give the message its place in the thread; with `into`, as steering of that run."""

    into: str | None = None
    definition: str = Field(default="", description="under which the workflow would begin it")


class Owner(Contract):
    """Who speaks on a thread now."""

    agent: str
    definition: str
    budget: Budget = Budget()
    memory: bool = False


class Begun(Contract):
    """Where a run began under this chain: its step number, and what it had used before. The same after a Reset."""

    step_no: int = 0
    rounds: int = 0
    steps: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    unpriced: int = Field(default=0, description="model calls whose price is unknown")
    moved: Owner | None = Field(default=None, description="the thread was handed over since the run was admitted")
    over: RunState | None = Field(
        default=None, description="state of the run, or of the one to join, if it has ended; nothing is begun then"
    )


class ModelStep(StepRef):
    """One model call over the thread as it stands. Steps of its tool calls follow step_no."""

    definition: str
    recall_step: int | None = None


class ModelReply(Contract):
    """What a model call decided, in ids and counts. `too_long`: nothing was sent, compact first.

    `over_budget`, `stopped`: nothing was sent, and the run is to end so; `error` says why.

    `invalid`: the answer is not of the agent's type; a correction follows it in the thread, or `error` ends the run.
    """

    status: Literal["ok", "too_long", "invalid", "over_budget", "stopped"] = "ok"
    seq: int = 0
    calls: list[Call] = []
    tokens: int = 0
    cost_usd: float = 0.0
    unpriced: int = Field(default=0, description="1: the price is unknown, so cost_usd is 0")
    preview: str = ""
    compact: bool = False
    error: str | None = None


class Compact(StepRef):
    """Choose from which message on the thread is sent, so that it fits the window."""

    definition: str


class Compacted(Contract):
    """The window after compaction."""

    from_seq: int
    tokens: int
    changed: bool = False


class ToolStep(StepRef):
    """One tool call through the ledger. With edited arguments, or long ones, `args` is None: they are in Postgres."""

    definition: str
    call_id: str
    tool: str
    seq: int
    effect: EffectClass
    args: str | None = None
    args_hash: str
    edited: bool = False
    rejected: str | None = Field(default=None, description="a person rejected the call: fill its slot with this reason")
    unserved: bool = Field(default=False, description="no worker of the memory queue accepted the call: do without")


class ToolOutcome(Contract):
    """What became of a tool call. `in_doubt` waits for a person."""

    status: Literal["done", "error", "in_doubt", "abandoned"]
    preview: str = ""
    bytes: int = 0


class ChildStep(ToolStep):
    """A call of another agent: `child` is its run, on a thread of its own."""

    agent: str
    thread: str
    child: str
    depth: int


class ChildReady(Contract):
    """The message to ask with; or with an outcome, that nothing is to be asked (any more)."""

    outcome: ToolOutcome | None = None
    text: str | None = None
    text_ref: str | None = None


class ChildOutcome(Contract):
    """How the run of another agent stands; with an outcome, it has ended and its slot is filled.

    `lost`: there is neither such a run nor a workflow that could begin it.
    """

    status: Literal["running", "lost", "ended"]
    outcome: ToolOutcome | None = None


class HandOff(ToolStep):
    """Move the conversation to another agent. `late`: another call of the same reply has moved it already."""

    agent: str
    late: bool = False


class HandedOff(ToolOutcome):
    """What became of a hand-off; with an owner, the conversation has moved."""

    owner: Owner | None = None


class RequestApprovals(StepRef):
    """Mirror pending approvals in Postgres and say so to whoever watches."""

    calls: list[Call]
    definition: str


class Said(Contract):
    """A decision that stands though this history has it not: a Reset went back to before it."""

    step_no: int
    approve: bool
    args_hash: str | None = Field(default=None, description="of the arguments a person put in place of the model's")
    reason: str | None = None


class Asked(Contract):
    """Steps that nobody is asked about: a Reset came after the ledger had their outcome, or a person had decided."""

    settled: list[int] = []
    said: list[Said] = []
    shown: dict[int, str] = Field(
        default={}, description="by step: the excerpt that is shown of arguments that are not sent along"
    )


class RecordDecision(StepRef):
    """Write the audit row of a decision, before the approved call may be claimed."""

    decision: Decision
    definition: str
    tool: str
    args_hash: str
    seq: int
    call_id: str


class Recorded(Contract):
    """Whether the decision stands; edited arguments that do not fit the schema do not."""

    accepted: bool
    args: str | None = None
    args_hash: str = ""
    why: str | None = None
    said: Said | None = Field(default=None, description="the decision that stands instead")
    over: bool = Field(default=False, description="the run has ended, or belongs to another workflow now")


class RefusedWord(Contract):
    """A person's decision that was refused, as it is recorded in the audit."""

    id: str = Field(description="id of the audit row if the decision has no id or its id is taken")
    decision_id: str | None = None
    action: str
    run_id: str | None = None
    step_no: int | None = None
    actor: str | None = None
    why: str
    about: dict[str, str] = {}


class AuditRefusals(Contract):
    """Write the audit rows of refused decisions."""

    words: list[RefusedWord]


class ResolveEffect(StepRef):
    """Carry out a person's word on a call in doubt, audited."""

    resolution: Resolution


class Resolved(Contract):
    """Whether the word was carried out; `not_done` is refused until lease and deadline have passed."""

    accepted: bool
    why: str | None = None


class EndRun(StepRef):
    """Close a run: open slots are filled with `interrupted`, the answer is committed with its outbox row."""

    state: RunState
    error: str | None = None
    answer_seq: int | None = None
    steps: int = 0
    memory: bool = False
    stop: StopRequest | None = Field(
        default=None, description="the request to stop the run, to be audited when it ends"
    )


class Ended(Contract):
    """The run's row as it is now closed; `outbox` says that memory has something to remember.

    `before`: it had ended before, with this error and the beginning of this answer.
    """

    state: RunState
    outbox: bool = False
    before: bool = False
    error: str | None = None
    preview: str = ""


class Recall(StepRef):
    """Find what long-term memory knows about the run's message; the hits are stored in Postgres."""

    limit: int = 5


class Recalled(Contract):
    """How many memories were found."""

    count: int = 0


class RecallMissed(StepRef):
    """Say that memory did not answer in time and the run goes on without."""

    why: str = "memory unavailable"


class Remember(Contract):
    """Carry outbox rows of one run, or with run_id None of everyone, into long-term memory."""

    run_id: str | None = None
    limit: int = 200


class Remembered(Contract):
    """How many outbox rows were carried out, and how many are left."""

    count: int = 0
    left: int = 0


class MemoryQuestion(Contract):
    """Input of MemoryWorkflow: what does this tenant's long-term memory know about a text?"""

    tenant: str = Field(default="default", pattern=r"^[A-Za-z0-9._-]{1,128}$", description="whose memory")
    text: str = Field(min_length=1, max_length=4000, description="what to look for")
    thread: str | None = Field(
        default=None,
        description="the conversation to search; without it: all conversations of the tenant, for operators only",
    )
    limit: int = Field(default=5, ge=1, le=100, description="at most so many hits")


class MemoryHit(Contract):
    """One memory, best first; score is the engine's own."""

    id: str = Field(description="the memory's id")
    text: str = Field(description="what is remembered")
    score: float = Field(description="the engine's own; only their order means something")
    thread: str | None = Field(default=None, description="the conversation it comes from")
    run_id: str | None = Field(default=None, description="the run it comes from")
    at: datetime | None = Field(default=None, description="when it was remembered")


class MemoryAnswer(Contract):
    """Result of MemoryWorkflow."""

    hits: list[MemoryHit] = Field(default=[], description="best first")


class SendMessage(Contract):
    """Send the message of an AskWorkflow to its thread."""

    ask: Ask
    thread: str
    message_id: str
    scheduled_at: datetime | None = None


class ReadAnswer(Contract):
    """Read how a run stands; the answer rides along when short."""

    run_id: str
    thread: str

"""What the client shows of runs, steps, approvals and answers. Client, CLI and API speak in these; none changes."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, ClassVar, Generic, Literal

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeVar

__all__ = [
    "Answer",
    "ApprovalView",
    "MessageView",
    "RunStatus",
    "RunSummary",
    "SentRequest",
    "StepDetail",
    "StepState",
    "StepView",
    "Usage",
    "WaitingCall",
]


Out = TypeVar("Out", default=Any)


class _View(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore")


class Usage(_View):
    """Tokens of a run's model calls."""

    input_tokens: int = 0
    output_tokens: int = 0


class Answer(_View, Generic[Out]):
    """What a run came to.

    `output` is the text, or where the agent gives typed answers its JSON value, or that as the type it was read as.
    `text` is what the model wrote. `tokens_below` and `cost_usd_below` are what the agents spent that it asked.
    `unpriced` counts model calls whose price is unknown; `cost_usd` does not include them.
    """

    run_id: str
    thread: str
    output: Out
    text: str
    state: str
    usage: Usage = Usage()
    cost_usd: float = 0.0
    steps: int = 0
    rounds: int = 0
    tokens_below: int = 0
    cost_usd_below: float = 0.0
    unpriced: int = 0
    unpriced_below: int = 0


class RunSummary(_View):
    """One line of the list of runs. `approvals` and `in_doubt` count what waits for a person.

    `parent_run_id` is the run that asked for this one, if another agent did; `tokens_below` and `cost_usd_below` are
    what was spent by the agents that it asked, and by those that they asked. `unpriced` counts model calls whose price
    is unknown; `cost_usd` does not include them.
    """

    run_id: str
    thread: str
    agent: str
    state: str
    rounds: int = 0
    steps: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    created_at: datetime | None = None
    ended_at: datetime | None = None
    error: str | None = None
    approvals: int = 0
    in_doubt: int = 0
    parent_run_id: str | None = None
    tokens_below: int = 0
    cost_usd_below: float = 0.0
    unpriced: int = 0
    unpriced_below: int = 0

    @classmethod
    def of(cls, row: dict[str, Any]) -> RunSummary:
        """Make one of a row of `memory.runs.listing`."""
        parent = row.get("parent_run_id")
        return cls.model_validate(
            {**row, "run_id": str(row["run_id"]), "parent_run_id": str(parent) if parent is not None else None}
        )


class RunStatus(RunSummary):
    """How a run stands. State `accepted`: its message was taken, and nothing is stored of it yet."""

    message_id: str | None = None
    mode: str = "next"
    message: str | None = None
    merged_into: str | None = None
    started_at: datetime | None = None
    usage: Usage = Usage()

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.ended_at is not None


class StepView(_View):
    """One row of the effect ledger. `effect` is the step's class, `fence` how often it was taken over plus one."""

    step_no: int
    tool: str
    effect: str
    state: str
    fence: int
    sends: int
    args_hash: str
    owner: str | None = None
    sent_at: datetime | None = None
    lease_until: datetime | None = None
    deadline: datetime | None = None
    created_at: datetime
    ended_at: datetime | None = None
    error: str | None = None
    result: dict[str, Any] | None = None

    @classmethod
    def of(cls, row: dict[str, Any]) -> StepView:
        """Make one of a row of `memory.ledger.of_run`."""
        result = json.loads(row["result"]) if row["result"] is not None else None
        return cls.model_validate({**row, "effect": row["class"], "result": result})


class ApprovalView(_View):
    """A call that a person was asked to approve.

    `args` are the edited arguments if a person changed them, else the model's; `asked_args` are always the model's.
    """

    step_no: int
    call_id: str
    tool: str
    args_hash: str
    state: str
    args: Any = None
    asked_args: Any = None
    edited: bool = False
    decision_id: str | None = None
    actor: str | None = None
    reason: str | None = None
    asked_at: datetime
    decided_at: datetime | None = None


class MessageView(_View):
    """A message in its place. `body` is the JSON sent to the model, None while a tool's slot is open."""

    seq: int
    role: str
    run_id: str
    body: dict[str, Any] | None = None
    blob: str | None = None
    at: datetime


class WaitingCall(_View):
    """A call that waits for a person, in this run or in the run of an agent that it asked.

    `kind` says what it waits for: an `approval` of the call with these `args`, or a decision about a call `in_doubt`.
    """

    run_id: str
    thread: str
    agent: str
    step_no: int
    tool: str
    kind: Literal["approval", "in_doubt"]
    args: dict[str, Any] | str | None = None
    error: str | None = None


StepState = Literal[
    "done",
    "failed",
    "rejected",
    "not_made",
    "to_approve",
    "not_begun",
    "running",
    "retrying",
    "asking",
    "in_doubt",
    "abandoned",
    "interrupted",
]
"""What became of a step. `failed`: the tool was called and reported an error, or could not be called. `rejected`: by a
person. `not_made`: the model named no such tool, its arguments did not fit, or the run ended before. `asking`: another
agent, whose run goes on. `interrupted`: the run ended while the call was under way."""


class SentRequest(_View):
    """The request of a model call, rebuilt from what is stored, before it is put into the form of a provider.

    `settings` has what was set of `temperature`, `seed`, `max_tokens`, `response_format`, `params` and `api_base`; in
    `params`, values under names such as `api_key` are masked. `hash` is the SHA-256 that was stored when the request
    was sent, over model, messages, tools and all settings but `api_base`; `verified` says that the rebuilt request has
    the same.
    """

    model: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = []
    settings: dict[str, Any] = {}
    hash: str
    verified: bool


class StepDetail(_View):
    """One step with all that went in and came out, nothing cut.

    Of a model call: `reply`, the message as it was stored (after plugins), with tokens, cost in US dollars and seconds;
    and `request`, which only `RunHandle.step` reads. Of a tool call: `args` as the model chose them (text where they
    are no JSON object), `edited_args` if a person put others in their place, and `result` or `error` in full. `read_as`
    is what the model was given instead, where that differs: a long result trimmed, an error with advice, a rejection.
    `ledger` is the step's row in the effect ledger; a call that was never begun has none.
    """

    run_id: str
    step_no: int
    kind: Literal["model", "tool", "other"]
    tool: str
    state: StepState
    agent: str = ""
    asked_by: int | None = None
    call_id: str | None = None
    child: str | None = None
    args: dict[str, Any] | str | None = None
    edited_args: dict[str, Any] | None = None
    result: str | None = None
    error: str | None = None
    read_as: str | None = None
    request: SentRequest | None = None
    reply: dict[str, Any] | None = None
    model: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None
    unpriced: int = 0
    seconds: float | None = None
    ledger: StepView | None = None

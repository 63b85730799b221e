"""What the client shows of runs, steps, approvals and answers. Client, CLI and API speak in these; none changes."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, ClassVar, Generic

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeVar

__all__ = ["Answer", "ApprovalView", "MessageView", "RunStatus", "RunSummary", "StepView", "Usage"]


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


class RunSummary(_View):
    """One line of the list of runs. `approvals` and `in_doubt` count what waits for a person.

    `parent_run_id` is the run that asked for this one, if another agent did; `tokens_below` and `cost_usd_below` are
    what the agents spent that it asked, and those that they asked.
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
    """A call that a person was asked about. `args` are the edited ones if a person changed them, else the model's."""

    step_no: int
    call_id: str
    tool: str
    args_hash: str
    state: str
    args: Any = None
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

"""What a Temporal client says to a thread, and what it hears: updates, signals, AskWorkflow, events."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field, model_validator

from holdfast.contracts.base import Contract, Mode


class Message(Contract):
    """A message for an agent. Update `message` of AgentWorkflow, by update-with-start."""

    message_id: str = Field(min_length=1, max_length=256)
    agent: str = Field(min_length=1, max_length=128)
    text: str | None = Field(default=None, description="at most 2 KiB; longer text is stored first, see text_ref")
    text_ref: str | None = None
    mode: Mode = "next"
    notify: str | None = Field(default=None, description="workflow id that gets the signal `ended` with the run id")

    @model_validator(mode="after")
    def _one_text(self) -> Message:
        if (self.text is None) == (self.text_ref is None):
            raise ValueError("give exactly one of text and text_ref")
        return self


class Accepted(Contract):
    """The answer to `message`: the run that will answer it, now or already."""

    run_id: str
    known: bool = False


class Decision(Contract):
    """A person's word on a pending approval. Update and signal `decide` of AgentWorkflow."""

    approve: bool
    run_id: str | None = None
    call_id: str | None = Field(default=None, description="may be left out when exactly one approval is pending")
    reason: str | None = Field(default=None, max_length=2000, description="the model sees it when the call is rejected")
    args: dict[str, Any] | None = Field(default=None, description="edited arguments, validated before they are used")
    decision_id: str | None = None
    actor: str | None = None
    verified: bool = False


class Resolution(Contract):
    """A person's word on a call in doubt. Update and signal `resolve` of AgentWorkflow."""

    step_no: int
    outcome: Literal["done", "not_done", "abandon", "reuse", "redo"]
    result: str | None = Field(default=None, description="what the call returned, with outcome done")
    run_id: str | None = None
    decision_id: str | None = None
    actor: str | None = None


class Receipt(Contract):
    """The answer to `decide`, `resolve` and `stop`: the word was taken; its audit row has the decision id."""

    decision_id: str
    run_id: str
    step_no: int | None = None


class StopRequest(Contract):
    """Stop a run within a second. Update and signal `stop` of AgentWorkflow."""

    run_id: str | None = Field(default=None, description="left out: the run under way")
    reason: str | None = Field(default=None, max_length=500)
    actor: str | None = None


class Recurring(Contract):
    """What a Schedule adds to its question: the text is a template, filled with the time it was scheduled for."""

    schedule: str = Field(min_length=1, max_length=128, description="its name")
    tenant: str
    time_zone: str = "UTC"
    fail: bool = Field(
        default=False, description="fail when the run has no answer, so that Temporal pauses the Schedule"
    )
    earlier: list[str] = Field(default=[], description="threads it spoke on before it was changed, to find its runs by")


class Ask(Contract):
    """Input of AskWorkflow: for any Temporal client, the Web UI and Schedules."""

    agent: str = Field(min_length=1, max_length=128)
    text: str = Field(min_length=1)
    thread: str | None = None
    message_id: str | None = None
    mode: Mode = "next"
    wait: bool = True
    recurring: Recurring | None = None


class AskResult(Contract):
    """Result of AskWorkflow. An answer over 16 KiB is left out and named by answer_ref."""

    run_id: str
    thread: str
    state: str
    answer: str | None = None
    answer_ref: str | None = None
    output: Any = Field(default=None, description="the answer as JSON, where the agent gives typed ones")
    error: str | None = None
    tokens: int = Field(0, description="with those of the agents that it asked")
    cost_usd: float = Field(0.0, description="with that of the agents that it asked")
    steps: int = 0


class Event(Contract):
    """One entry of a run's gapless record. Sequence numbers start at 1."""

    run_id: str
    seq: int
    kind: str
    at: datetime
    data: dict[str, Any] = {}

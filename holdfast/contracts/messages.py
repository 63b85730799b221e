"""What a Temporal client says to a thread, and what it hears: updates, signals, AskWorkflow, events."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field, model_validator

from holdfast.contracts.base import MOST_STEPS, Contract, Mode

_AGENT = "name of the agent"
_MODE = "`next`: a run of its own, after those before it; `steer`: joins the run under way at its next model call"
_ONLY_RUN = "refuse it unless this run is under way"
_ACTOR = "who sends this, at most 1,000 bytes; recorded as given, not verified"
_DECISION_ID = "id of the audit row, at most 256 bytes; generated if left out"


class Message(Contract):
    """A message for an agent. Update `message` of AgentWorkflow, by update-with-start."""

    message_id: str = Field(
        min_length=1, max_length=256, description="sending it again is safe, and returns the same run"
    )
    agent: str = Field(min_length=1, max_length=128, description=_AGENT)
    text: str | None = Field(default=None, description="at most 2 KiB; give it or `text_ref`")
    text_ref: str | None = Field(
        default=None,
        description="id of a longer text that was stored before, as Holdfast's client does; 1 to 1,000 bytes",
    )
    mode: Mode = Field(default="next", description=_MODE)
    notify: str | None = Field(
        default=None, description="id of a workflow, 1 to 1,000 bytes, that receives the signal `ended` with the run id"
    )
    queue: str | None = Field(
        default=None,
        description="the task queue whose workers are to answer: a workflow of the thread on another queue refuses the "
        "message with the error type `ThreadElsewhere`, and ends if it is idle; unset, any takes it",
    )

    @model_validator(mode="after")
    def _one_text(self) -> Message:
        if (self.text is None) == (self.text_ref is None):
            raise ValueError("give exactly one of text and text_ref")
        return self


class Accepted(Contract):
    """The answer to `message`: the run that will answer it, now or already."""

    run_id: str = Field(description="the run that answers the message")
    known: bool = Field(default=False, description="the message had come before")


class Decision(Contract):
    """A person's word on a pending approval. Update and signal `decide` of AgentWorkflow."""

    approve: bool = Field(description="yes or no")
    run_id: str | None = Field(default=None, description=_ONLY_RUN)
    call_id: str | None = Field(
        default=None, description="step number of the call, as text; may be left out if exactly one call waits"
    )
    reason: str | None = Field(
        default=None, max_length=2000, description="the model reads it when the call is rejected"
    )
    args: dict[str, Any] | None = Field(
        default=None, description="make the call with these arguments instead; they are checked first"
    )
    decision_id: str | None = Field(default=None, description=_DECISION_ID)
    actor: str | None = Field(default=None, description=_ACTOR)
    verified: bool = Field(
        default=False, description="nobody can set it yet: who decides is kept as said, and unverified"
    )


class Resolution(Contract):
    """A person's word on a call in doubt. Update and signal `resolve` of AgentWorkflow."""

    step_no: int = Field(ge=0, le=MOST_STEPS, description="step number of the call, as `holdfast show` prints it")
    outcome: Literal["done", "not_done", "abandon"] = Field(description="what became of it")
    result: str | None = Field(default=None, description="what the call returned, with outcome `done`")
    run_id: str | None = Field(default=None, description=_ONLY_RUN)
    decision_id: str | None = Field(default=None, description=_DECISION_ID)
    actor: str | None = Field(default=None, description=_ACTOR)


class Receipt(Contract):
    """The answer to `decide`, `resolve` and `stop`: the word was taken; its audit row has the decision id."""

    decision_id: str = Field(description="id of the audit row")
    run_id: str = Field(description="the run it is about")
    step_no: int | None = Field(default=None, description="the step it is about")


class StopRequest(Contract):
    """Stop a run within a second. Update and signal `stop` of AgentWorkflow."""

    run_id: str | None = Field(
        default=None, description="the run to stop, which may be queued; left out: the one under way"
    )
    reason: str | None = Field(default=None, max_length=500, description="kept with the run")
    decision_id: str | None = Field(default=None, description=_DECISION_ID)
    actor: str | None = Field(default=None, description=_ACTOR)


class Recurring(Contract):
    """What a Schedule adds to its question: the text is a template, filled with the time it was scheduled for."""

    schedule: str = Field(min_length=1, max_length=128, description="its name")
    tenant: str = Field(description="whose it is")
    time_zone: str = Field(default="UTC", description="IANA name of the zone in which times are written")
    fail: bool = Field(
        default=False, description="fail when the run has no answer, so that Temporal pauses the Schedule"
    )
    earlier: list[str] = Field(default=[], description="threads it spoke on before it was changed, to find its runs by")


class Ask(Contract):
    """Input of AskWorkflow: for any Temporal client, the Web UI and Schedules."""

    agent: str = Field(min_length=1, max_length=128, description=_AGENT)
    text: str = Field(min_length=1, description="the message")
    thread: str | None = Field(
        default=None,
        description="the conversation, 1 to 128 of `A-Z a-z 0-9 . _ -`; left out: one named after the workflow id",
    )
    message_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="the same id on the same thread means the same run; default: the workflow id, or its hash if the "
        "id is longer",
    )
    mode: Mode = Field(default="next", description=_MODE)
    wait: bool = Field(default=True, description="false: end as soon as the message is accepted")
    recurring: Recurring | None = Field(default=None, description="the text is a template of a Schedule")


class AskResult(Contract):
    """Result of AskWorkflow. An answer over 16 KiB is left out and named by answer_ref."""

    run_id: str = Field(description="the run that answered")
    thread: str = Field(description="the conversation it belongs to")
    state: str = Field(
        description="`done`, `failed`, `stopped`, `over_budget`, `looping` or `refused`; `queued` if not waited for"
    )
    answer: str | None = Field(default=None, description="the answer's text, if it has at most 16 KiB")
    answer_ref: str | None = Field(default=None, description="names a longer answer: `tenant:thread/seq`")
    output: Any = Field(default=None, description="the answer as JSON, where the agent gives typed ones")
    error: str | None = Field(default=None, description="why there is no answer")
    tokens: int = Field(default=0, description="of its model calls, and of the agents it asked")
    cost_usd: float = Field(default=0.0, description="of the same, where the price is known")
    unpriced: int = Field(default=0, description="model calls whose price is unknown")
    steps: int = Field(default=0, description="model calls, tool calls and memory operations")
    stored: bool = Field(
        default=True, description="false: the message was accepted, and nobody has written it down yet"
    )


class Event(Contract):
    """One entry of a run's gapless record. Sequence numbers start at 1."""

    run_id: str = Field(description="the run it belongs to")
    seq: int = Field(description="its number in that run")
    kind: str = Field(description="what happened")
    at: datetime = Field(description="when, by the clock of PostgreSQL")
    data: dict[str, Any] = Field(default={}, description="what its kind carries")

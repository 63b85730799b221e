"""What each kind of event carries. The page is made of this, and tests hold every event they cause against it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["KINDS", "check"]

_STEP = "number of the step"
_TOOL = "name of the tool"
_CALL = "the model's id of the call"


class _Kind(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Accepted(_Kind):
    """The message was stored, and its run waits for its turn."""

    agent: str = Field(description="who is asked")
    message_id: str = Field(description="as it was sent")
    mode: Literal["next", "steer"] = Field(description="as it was sent")


class Refused(_Kind):
    """No run began; the last event."""

    error: str = Field(description="why")


class Started(_Kind):
    """Work on the run begins."""


class Recalled(_Kind):
    """Long-term memory was asked."""

    count: int = Field(description="memories found")


class MemoryUnavailable(_Kind):
    """Long-term memory did not answer in time, or cannot search for this message; the run continues without it."""

    why: str = Field(description="what it said")


class Asked(_Kind):
    """A call in a model's reply."""

    step: int = Field(description=_STEP)
    call_id: str = Field(description=_CALL)
    tool: str = Field(description=_TOOL)
    args: str = Field(max_length=200, description="beginning of its arguments, JSON")
    error: str | None = Field(default=None, description="why it is not made; left out if it is")


class Replied(_Kind):
    """A model call is recorded, with its reply."""

    step: int = Field(description=_STEP)
    text: str = Field(max_length=500, description="beginning of what it said")
    calls: list[Asked] = Field(
        description="the tools it asked for, each `{step, call_id, tool, args}`, and `error` where it is not made"
    )
    tokens_in: int = Field(description="tokens sent")
    tokens_out: int = Field(description="tokens received")
    cost_usd: float = Field(description="what it cost, 0 where the price is not known")
    unpriced: int = Field(default=0, description="1 if the price is unknown; otherwise left out")
    seconds: float = Field(description="how long it took")
    model: str = Field(description="who answered")
    seq: int = Field(description="place of the reply in the thread")


class Invalid(_Kind):
    """The answer is not of the agent's type."""

    step: int = Field(description=_STEP)
    why: str = Field(max_length=500, description="what does not fit")
    correction: int = Field(description="which correction was asked for; 0: none is left")
    corrections: int = Field(description="how many there may be")


class ToolDone(_Kind):
    """A call has its result, and the model will read it."""

    step: int = Field(description=_STEP)
    call_id: str = Field(description=_CALL)
    tool: str = Field(description=_TOOL)
    status: Literal["done", "error", "abandoned"] = Field(description="how it ended")
    preview: str = Field(max_length=200, description="beginning of the result")
    bytes: int = Field(description="size of the whole result")
    seconds: float = Field(description="how long it took")


class Plugin(_Kind):
    """What a plugin did to a message, a model call or a tool call."""

    step: int = Field(description=f"{_STEP}; 0: the message")
    plugin: str = Field(description="its name")
    hook: str = Field(description="where it stands: `message`, `before_model`, `after_model` and so on")
    did: Literal["changed", "refused", "failed"] = Field(description="what it did; one that failed was left out")
    why: str | None = Field(description="its words, if it refused or failed")


class ApprovalRequested(_Kind):
    """A call waits for a person."""

    step: int = Field(description=_STEP)
    call_id: str = Field(description=_CALL)
    tool: str = Field(description=_TOOL)
    args: str = Field(max_length=2000, description="its arguments as JSON; of long ones, the beginning and the end")
    args_hash: str = Field(description="what the decision is bound to")


class ApprovalDecided(_Kind):
    """A person has decided."""

    approve: bool = Field(description="yes or no")
    reason: str | None = Field(description="what the model reads of a rejection")
    actor: str | None = Field(description="who decided, as given, not verified")
    edited: bool = Field(description="the arguments were changed")
    step: int = Field(description=_STEP)
    call_id: str = Field(description=_CALL)
    tool: str = Field(description=_TOOL)


class ApprovalRefused(_Kind):
    """A decision did not fit, and the call goes on waiting."""

    why: str | None = Field(description="what was wrong with it")
    step: int = Field(description=_STEP)
    call_id: str = Field(description=_CALL)
    tool: str = Field(description=_TOOL)


class InDoubt(_Kind):
    """Nobody knows whether a call took effect; it waits for a person."""

    step: int = Field(description=_STEP)
    tool: str = Field(description=_TOOL)
    why: str = Field(description="how it came")


class Resolved(_Kind):
    """A person has said what became of it."""

    step: int = Field(description=_STEP)
    outcome: Literal["done", "not_done", "abandon"] = Field(description="what the person decided")
    actor: str | None = Field(description="who decided, as given, not verified")


class Joined(_Kind):
    """A steering message joined this run."""

    run_id: str = Field(description="the message's own run")
    message_id: str = Field(description="as it was sent")


class StopRequested(_Kind):
    """Somebody has asked to stop the run, which ends with the next event."""

    actor: str | None = Field(description="who asked, as given, not verified")
    reason: str | None = Field(description="the reason, as given")


class Merged(_Kind):
    """This run, a steering message's, joined another; the last event."""

    into: str = Field(description="the run it joined, which has the answer")


class ChildStarted(_Kind):
    """Another agent is asked."""

    step: int = Field(description=_STEP)
    run_id: str = Field(description="its run")
    agent: str = Field(description="who is asked")
    thread: str = Field(description="its thread")


class ChildEnded(_Kind):
    """Another agent's run has ended, and the model will read its answer, or why there is none."""

    step: int = Field(description=_STEP)
    run_id: str = Field(description="its run")
    thread: str = Field(description="its thread")
    state: str = Field(description="how it ended")
    agent: str = Field(description="who had it at the end")
    tokens: int = Field(description="spent by it and all below it")
    cost_usd: float = Field(description="spent by it and all below it")
    unpriced: int = Field(default=0, description="model calls whose price is unknown; left out if there are none")


class HandedOff(_Kind):
    """The conversation moved to another agent."""

    step: int = Field(description=_STEP)
    agent: str = Field(description="who speaks from here on")
    before: str = Field(description="who spoke until here")


class Compacted(_Kind):
    """The window was nearly full: older messages are sent no more, and stay in the thread."""

    from_seq: int = Field(description="first message that is still sent")
    tokens: int = Field(description="estimate of what is left")


class Ended(_Kind):
    """The run is over; the last event."""

    state: Literal["done", "failed", "stopped", "over_budget", "looping"] = Field(description="how it ended")
    error: str | None = Field(description="why there is no answer")
    answer_seq: int | None = Field(description="place of the answer in the thread")
    tokens: int = Field(description="of its own model calls")
    cost_usd: float = Field(description="of its own model calls")
    rounds: int = Field(description="model calls")
    steps: int = Field(description="all steps")
    tokens_below: int = Field(default=0, description="spent by the agents it asked; left out if there are none")
    cost_usd_below: float = Field(default=0.0, description="spent by the agents it asked; left out if there are none")
    unpriced: int = Field(default=0, description="model calls whose price is unknown; left out if there are none")
    unpriced_below: int = Field(default=0, description="the same for the agents it asked; left out if there are none")


KINDS: dict[str, type[_Kind]] = {
    "accepted": Accepted,
    "refused": Refused,
    "started": Started,
    "recalled": Recalled,
    "memory_unavailable": MemoryUnavailable,
    "replied": Replied,
    "invalid": Invalid,
    "tool_done": ToolDone,
    "plugin": Plugin,
    "approval_requested": ApprovalRequested,
    "approval_decided": ApprovalDecided,
    "approval_refused": ApprovalRefused,
    "in_doubt": InDoubt,
    "resolved": Resolved,
    "child_started": ChildStarted,
    "child_ended": ChildEnded,
    "handed_off": HandedOff,
    "joined": Joined,
    "merged": Merged,
    "compacted": Compacted,
    "stop_requested": StopRequested,
    "ended": Ended,
}


def check(kind: str, data: str) -> None:
    """Raise unless an event's data, JSON, is what the page says of its kind."""
    KINDS[kind].model_validate_json(data)

"""Names and the base class of every model that crosses a boundary."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

AGENT_WORKFLOW = "AgentWorkflow"
ASK_WORKFLOW = "AskWorkflow"
MEMORY_WORKFLOW = "MemoryWorkflow"
OUTBOX_WORKFLOW = "OutboxWorkflow"

PREVIEW = 64  # characters of a text that may stand in a workflow history
MOST_STEPS = 2**31 - 1  # what PostgreSQL takes for the number of a step

EffectClass = Literal["pure", "local_tx", "keyed", "verifiable", "once"]
ApprovalPolicy = Literal["never", "always"]
Mode = Literal["next", "steer"]


class RunState(StrEnum):
    """What a run can be. The first three are open, the others are final."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"  # for a person: an approval, or a call in doubt
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    OVER_BUDGET = "over_budget"
    LOOPING = "looping"
    MERGED = "merged"  # a steering message that joined another run
    REFUSED = "refused"  # never started: unknown agent, thread of another agent


OPEN_STATES = (RunState.QUEUED, RunState.RUNNING, RunState.WAITING)


class Stored(BaseModel):
    """Base of all: unknown fields are ignored, so that older workers read newer payloads."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore")


class Contract(Stored):
    """Base of what stands in histories: fields at their default are left out, so a default may never change."""

    @model_serializer(mode="wrap")
    def _lean(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        for name, field in type(self).model_fields.items():
            if not field.is_required() and getattr(self, name) == field.get_default(call_default_factory=True):
                data.pop(name, None)
        return data


class Activity(StrEnum):
    """Names under which workflows know activities."""

    ADMIT = "admit"
    BEGIN_RUN = "begin_run"
    MODEL_STEP = "model_step"
    COMPACT = "compact"
    TOOL_STEP = "tool_step"
    REQUEST_APPROVALS = "request_approvals"
    RECORD_DECISION = "record_decision"
    RESOLVE_EFFECT = "resolve_effect"
    END_RUN = "end_run"
    RECALL = "recall"
    RECALL_MISSED = "recall_missed"
    REMEMBER = "remember"
    SEARCH_MEMORY = "search_memory"
    SEND_MESSAGE = "send_message"
    READ_ANSWER = "read_answer"
    PREPARE_CHILD = "prepare_child"
    CHILD_RESULT = "child_result"
    HAND_OFF = "hand_off"
    AUDIT_REFUSALS = "audit_refusals"


CONTROL = frozenset(Activity) - {
    Activity.MODEL_STEP,
    Activity.TOOL_STEP,
    Activity.RECALL,
    Activity.REMEMBER,
    Activity.SEARCH_MEMORY,
}
"""Short activities, a transaction each, on a task queue with slots of its own: none of them waits for a model."""

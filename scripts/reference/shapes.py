"""What each command writes with `--json`. A test runs the commands and compares."""

from __future__ import annotations

import types
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from holdfast.contracts import Event
from holdfast.schedules import ScheduleView
from holdfast.schedules.views import Occurrence
from holdfast.server.checks import Check
from holdfast.views import (
    Answer,
    ApprovalView,
    RunStatus,
    RunSummary,
    SentRequest,
    StepDetail,
    StepView,
    Usage,
    WaitingCall,
)

__all__ = ["SHAPES", "Shape", "named"]

_WORDS: dict[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    datetime: "time",
    type(None): "null",
    Any: "any",
}


@dataclass(frozen=True)
class Shape:
    """One kind of line: when it is written, its fields with their types; a field that may be left out ends with `?`."""

    when: str
    fields: dict[str, str]


def named(kind: Any) -> str:
    """Return the JSON type of a Python type."""
    if kind in _WORDS:
        return _WORDS[kind]
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(named(each) for each in args)
    if origin is Literal:
        return " or ".join(f'"{each}"' for each in args)
    if origin is list:
        return f"list of {named(args[0])}" if args else "list"
    if origin is dict or kind is dict:
        return "object"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"{{{', '.join(kind.model_fields)}}}"
    return "any"


def _of(model: type[BaseModel], *without: str) -> dict[str, str]:
    return {name: named(field.annotation) for name, field in model.model_fields.items() if name not in without}


_RUN = {"run_id": "string"}
_EVENT = Shape(
    "each [event](events.md), with the full arguments, replies, and `result` or `error` of calls",
    {"kind": "string", **_of(Event, "kind")},
)
_ANSWER = Shape(
    "at the end",
    {
        "kind": '"answer"',
        **{name: kind for name, kind in _of(Answer, "text").items() if name != "output"},
        "output": "string, or what a typed answer is; null if there is none",
        "usage": named(Usage),
        "error?": "why there is none",
    },
)
_WAITING = Shape(
    "with `--no-wait`, at the end, if the run waits for a person",
    {
        "kind": '"waiting"',
        **_RUN,
        "thread": "string",
        "waiting": "list of {" + ", ".join(WaitingCall.model_fields) + ", commands}",
    },
)
_DECIDED = Shape(
    "",
    {
        **_RUN,
        "step": "integer",
        "decision": '"approved" or "rejected"',
        "decision_id": "string",
        "tool": "string",
        "args": "object",
        "edited": "boolean",
    },
)


def _did(what: str) -> list[Shape]:
    return [Shape("", {"schedule": "string", "did": f'"{what}"'})]


_SCHEDULE = [Shape("", {**_of(ScheduleView, "recent"), "recent": f"list of {named(Occurrence)}"})]
_TOOL = {
    "server": "string",
    "tool": "string",
    "name": "string",
    "state": '"pinned", "changed", "new" or "gone"',
    "agents": "object: by agent, {effect, approval}",
    "annotations": "object",
    "pinned_hash": "string or null",
    "offered_hash": "string",
}

SHAPES: dict[str, list[Shape]] = {
    "init": [Shape("", {"folder": "string", "files": "list of string"})],
    "dev": [
        Shape(
            "when all is up",
            {
                "kind": '"ready"',
                "temporal_address": "string",
                "temporal_ui": "string or null",
                "namespace": "string",
                "qdrant_url": "string or null",
                "home": "string",
                "agents_file": "string",
                "agents": "list of string",
            },
        ),
        Shape("each thing to know", {"kind": '"notice"', "text": "string"}),
        Shape("at the end", {"kind": '"stopped"'}),
    ],
    "worker": [Shape("each line of its log", {"event": "string", "level": "string", "timestamp": "string"})],
    "run": [
        _EVENT,
        _ANSWER,
        Shape("with `--detach`, alone", {"kind": '"detached"', **_RUN, "thread": "string"}),
        _WAITING,
    ],
    "chat": [
        _EVENT,
        Shape("after each line's run", _ANSWER.fields),
        Shape(
            "for a line that cannot be sent",
            {"kind": '"refused"', "run_id": "null", "thread": "string", "error": "string"},
        ),
    ],
    "runs": [Shape("each run", _of(RunSummary))],
    "show": [
        Shape(
            "without `--follow` and STEP, a single object",
            {
                **_of(RunStatus, "usage"),
                "usage": named(Usage),
                "output": "as in an answer",
                "ui": "string or null",
                "steps_taken": f"list of {named(StepDetail)}",
                "approvals_asked": f"list of {named(ApprovalView)}",
                "waiting": f"list of {named(WaitingCall)}",
                "children": f"list of {named(RunSummary)}",
                "trouble": "list of string",
            },
        ),
        Shape(f"with `--follow`, {_EVENT.when}", _EVENT.fields),
        Shape("with `--follow`, at the end", _ANSWER.fields),
        Shape(
            "with STEP, a single object",
            {
                **_of(StepDetail),
                "request": f"{named(SentRequest)} or null",
                "ledger": f"{named(StepView)} or null",
            },
        ),
        _WAITING,
    ],
    "ui": [Shape("no browser is opened", {**_RUN, "url": "string"})],
    "approve": [_DECIDED],
    "reject": [_DECIDED],
    "stop": [Shape("", {**_RUN, "state": "string", "ended": "boolean"})],
    "resolve": [
        Shape(
            "",
            {
                **_RUN,
                "step": "integer",
                "outcome": '"done", "not_done" or "abandon"',
                "decision_id": "string",
            },
        )
    ],
    "export": [
        Shape("without `--out`: a recording", {"format": "integer", "holdfast": "string", "runs": "list of runs"}),
        Shape("with `--out`", {**_RUN, "file": "string", "bytes": "integer", "histories": "integer"}),
    ],
    "doctor": [
        Shape("", {"ok": "boolean", "checks": f"list of {{{', '.join(field.name for field in fields(Check))}}}"})
    ],
    "plugins": [
        Shape(
            "",
            {
                "plugins": "list of {name, source, active, order, required, hooks, problem}",
                "secrets": "list of {name, agents, set}",
            },
        )
    ],
    "down": [Shape("", {"home": "string", "stopped": "boolean"})],
    "mcp list": [
        Shape(
            "each server",
            {
                "server": "string",
                "said": "object: name, version, protocol",
                "first_seen": "time",
                "last_seen": "time",
                "away": "string or null: why this folder's workers cannot reach it",
                "tools": f"list of {{{', '.join(_TOOL)}}}",
            },
        )
    ],
    "mcp diff": [Shape("each suspended tool", {**_TOOL, "diff": "list of string"})],
    "mcp accept": [Shape("", {"accepted": "list of string"})],
    "schedule add": _SCHEDULE,
    "schedule list": [Shape("each schedule", _SCHEDULE[0].fields)],
    "schedule show": _SCHEDULE,
    "schedule pause": _did("paused"),
    "schedule resume": _did("resumed"),
    "schedule trigger": _did("triggered"),
    "schedule delete": _did("deleted"),
    "schedule backfill": [Shape("", {"schedule": "string", "did": '"backfilled"', "times": "list of time"})],
}

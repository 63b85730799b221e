"""The page of errors: the tree of `holdfast.errors`, from its docstrings and from what the command line makes of it."""

from __future__ import annotations

import inspect
import re

from holdfast import errors
from holdfast.activities.interceptor import FINAL
from holdfast.cli.problems import explain
from holdfast.errors import HoldfastError
from scripts.reference.markdown import escaped, fill, table

__all__ = ["again", "parts", "render", "status"]


# Whether the same is tried again; the nearest class above decides. What is final in activities is not listed here.
_AGAIN: dict[type[HoldfastError], str] = {
    HoldfastError: "",
    errors.StackError: "by the client, for `HOLDFAST_CLIENT_PATIENCE`, before it raises this",
    errors.TemporalBinaryNotFound: "no",
    errors.StackBusy: "no",
    errors.StackNotRunning: "no",
    errors.RunEnded: "no: send a new message",
    errors.RunWaits: "no: it goes on when somebody decides",
    errors.OutputInvalid: "no: the model has had its `corrections`",
    errors.StorageError: "by Temporal, until it is back",
    errors.EffectError: "no: it waits for a person, unless the tool is `pure`",
    errors.FencedOut: "no: another attempt has the call",
    errors.ToolNotStarted: "by Temporal, as often as the tool's `attempts` say",
    errors.ToolResultInvalid: "no: the call is done",
    errors.ServerLost: "as the tool's class allows",
    errors.ModelError: "a few times",
    errors.ModelUnavailable: "by Temporal, after the time the provider names, for `HOLDFAST_MODEL_PATIENCE`",
    errors.ContextTooLong: "after a compaction, as long as that makes room",
    errors.ToolError: "no: the model reads it",
}
_STATUS: dict[type[HoldfastError], int] = {
    HoldfastError: 500,
    errors.InvalidInput: 400,
    errors.UnknownAgent: 404,
    errors.UnknownRun: 404,
    errors.UnknownServer: 404,
    errors.UnknownSchedule: 404,
    errors.ScheduleExists: 409,
    errors.ThreadOwned: 409,
    errors.ThreadFull: 429,
    errors.DecisionRefused: 409,
    errors.StackError: 503,
    errors.StorageError: 503,
    errors.MemoryRefused: 400,
    errors.ModelUnavailable: 503,
}
_PARTS = re.compile(r"(.*?)\n\nWhen: (.*?)\nDo: (.*)", re.S)


def tree(kind: type[HoldfastError] = HoldfastError) -> list[tuple[int, type[HoldfastError]]]:
    """Return (depth, class) of a class and all below it, in the order of the file."""
    below = [each for each in kind.__subclasses__() if each.__module__ == errors.__name__ and each.__bases__[0] is kind]
    return [(0, kind), *((depth + 1, each) for child in below for depth, each in tree(child))]


def parts(kind: type[HoldfastError]) -> tuple[str, str, str]:
    """Return (message, when it is raised, what to do) of a class's docstring."""
    found = _PARTS.fullmatch(inspect.getdoc(kind) or "")
    if found is None:
        raise ValueError(f"{kind.__name__}: its docstring needs a first line, then `When: …` and `Do: …`")
    message, when, do = (" ".join(part.split()) for part in found.groups())
    return message, when, do


def again(kind: type[HoldfastError]) -> str:
    """Return whether the same is tried again, and by whom."""
    for each in kind.__mro__:
        if _AGAIN.get(each):
            return _AGAIN[each]
        if each in FINAL:
            return "no"
    return "depends on what it is"


def status(kind: type[HoldfastError]) -> int:
    """Return the HTTP status that fits."""
    return next(_STATUS[each] for each in kind.__mro__ if each in _STATUS)


def render() -> str:
    """Return the page."""
    drawn = "\n".join("    " * depth + kind.__name__ for depth, kind in tree())
    rows = [
        (f"[`{kind.__name__}`](#{kind.__name__.lower()})", str(explain(kind())[1]), str(status(kind)), again(kind))
        for _, kind in tree()
    ]
    out = []
    for _, kind in tree():
        message, when, do = parts(kind)
        out.append(f"## {kind.__name__}\n\n{escaped(message)}\n\n- **When** {when}\n- **Do** {do}\n")
    listed = table(("error", "exit code", "HTTP", "tried again"), rows)
    return fill("errors", tree=drawn, table=listed, errors="\n".join(out).rstrip("\n"))

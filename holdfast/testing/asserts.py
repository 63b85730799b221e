"""Assertions on what a run did. Their messages show what did happen. Users' tests call them, by `holdfast.testing`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.testing.calls import FinishedRun, ToolCall, cut, line, story, values

__all__ = ["assert_called", "effects", "steps"]

_MISSING = object()


def steps(run: FinishedRun) -> list[str]:
    """Return the names of a run's durable steps in order: `model` for a model call, else the tool; to be compared."""
    return [row.tool for row in run.steps]


def effects(run: FinishedRun) -> list[ToolCall]:
    """Return the calls that may have changed something: made, and not `pure`; those in doubt are among them."""
    return [call for call in run.calls if call.made and call.effect != "pure" and call.state != "failed"]


def assert_called(
    run: FinishedRun,
    tool: str,
    /,
    times: int | None = 1,
    *,
    where: Mapping[str, Any] | None = None,
    **args: Any,
) -> list[ToolCall]:
    """Check that *tool* was called so many times with these arguments, and return these calls.

    Arguments that are not named may be anything. They are compared with `==`, so `pytest.approx` and `mock.ANY` fit.
    *times* None: at least once. *where* is for arguments called `times` or `where`. Calls that never reached the tool
    (rejected by a person, refused for their arguments) do not count; `run.calls` has them.

    Raises:
        AssertionError: it was not; the message has the calls that were made, and how the nearest one differs.

    """
    __tracebackhide__ = True
    wanted = {**(where or {}), **args}
    fitting = [call for call in run.calls if call.tool == tool and call.made and not _differences(call, wanted)]
    if len(fitting) == times or (times is None and fitting):
        return fitting
    expected = "at least once" if times is None else _times(times)
    what = f"{tool}({values(wanted)})" if wanted else tool
    lines = [f"{what} was called {_times(len(fitting))}, expected {expected}.", "", story(run)]
    if hints := _hints(run, tool, wanted, fitting):
        lines += ["", *hints]
    raise AssertionError("\n".join(lines))


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _differences(call: ToolCall, wanted: Mapping[str, Any]) -> list[str]:
    given = call.args if isinstance(call.args, dict) else {}
    found = []
    for name, value in wanted.items():
        has = given.get(name, _MISSING)
        if has is _MISSING:
            found.append(f"{name} was not given (expected {cut(repr(value))})")
        elif not has == value:  # noqa: SIM201  # the expected value decides, as pytest.approx does, by ==
            found.append(f"{name} was {cut(repr(has))}, expected {cut(repr(value))}")
    return found


def _hints(run: FinishedRun, tool: str, wanted: Mapping[str, Any], fitting: list[ToolCall]) -> list[str]:
    """Say of the calls that did not count how they differ."""
    others = [call for call in run.calls if call.tool == tool and call not in fitting]
    hints = []
    for call in others:
        why = [f"it never reached the tool ({call.state})"] if not call.made else _differences(call, wanted)
        hints.append(f"Step {call.step} does not count: {'; '.join(why)}.")
    if not others and not fitting:
        names = sorted({call.tool for call in run.calls})
        hints.append(f"It called {', '.join(names)}." if names else "It called no tool at all.")
    return [*hints, *(f"Step {call.step} counts: {line(call)}" for call in fitting if len(fitting) > 1)]

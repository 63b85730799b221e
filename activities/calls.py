"""What a tool call is known by in the ledger, and the arguments it was given. Activities that carry one out use it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from temporalio.exceptions import ApplicationError

from holdfast.activities.deps import Deps, Here
from holdfast.contracts import ToolDefinition, ToolStep
from holdfast.errors import ToolArgumentsInvalid
from holdfast.ids import args_hash, effect_key
from holdfast.memory import decisions, threads
from holdfast.memory.ledger import Step
from holdfast.tools.context import ToolContext
from holdfast.tools.runner import ToolRunner
from holdfast.tools.tool import AnyTool

__all__ = ["ToolAttempt", "arguments_of", "fitting", "step_of"]


@dataclass(slots=True)
class ToolAttempt:
    """One attempt at one tool call: whose it is, what is called with which arguments, and who carries it out."""

    deps: Deps
    at: Here
    inp: ToolStep
    step: Step
    declared: ToolDefinition  # as the run's definition has it; `tool` is the code that this worker loaded
    tool: AnyTool
    args: dict[str, Any]
    ctx: ToolContext
    started: float = field(default_factory=time.monotonic)

    @property
    def agent(self) -> str:
        """Name of the agent whose call it is."""
        return self.deps.definitions[self.inp.definition].name  # read before the call

    @property
    def runner(self) -> ToolRunner:
        """What runs the tool."""
        if self.deps.runner is None:
            raise ApplicationError("this worker runs no tools", type="ConfigurationError")
        return self.deps.runner

    @property
    def seat_within(self) -> float:
        """Seconds to wait for a thread before another worker may have the call."""
        settings = self.deps.settings
        return min(self.declared.timeout, settings.scaled(10 * settings.lease))


def step_of(at: Here, inp: ToolStep) -> Step:
    """Return the step as the ledger has it."""
    scope = at.scope(inp)
    return Step(
        key=effect_key(scope, inp.step_no, inp.tool),
        run_id=inp.run_id,
        scope=scope,
        step_no=inp.step_no,
        tool=inp.tool,
        effect=inp.effect,
        args_hash=inp.args_hash,
    )


async def arguments_of(deps: Deps, at: Here, inp: ToolStep) -> dict[str, Any]:
    """Return the arguments: a person's, the ones sent along, or those in the model's own message.

    They are those that were decided on: their hash is compared here, before anything is claimed.

    Raises:
        ToolArgumentsInvalid: they are not in the database, or others than those that were.

    """
    text = None if inp.edited else inp.args
    if text is None:
        async with deps.pool.acquire() as conn:
            if inp.edited:
                text = await decisions.edited_args(conn, inp.run_id, inp.step_no)
            else:
                text = await threads.call_arguments(conn, at.tenant, at.thread, inp.seq, inp.call_id)
    if text is None:
        raise ToolArgumentsInvalid(f"the arguments of call {inp.call_id} are not in the database")
    args: dict[str, Any] = json.loads(text or "{}")
    if args_hash(args) != inp.args_hash:
        raise ToolArgumentsInvalid(
            f"the arguments of call {inp.call_id} in the database differ from those that were requested or approved, "
            "so "
            "the call was not made. Find out who changed them."
        )
    return args


def fitting(tool: AnyTool, args: dict[str, Any]) -> dict[str, Any]:
    """Return *args* as the tool's own code makes them: right types, defaults filled in.

    Raises:
        ToolArgumentsInvalid: they do not fit, or the check itself failed, which no other try would change.

    """
    try:
        return tool.validate(dict(args))
    except ToolArgumentsInvalid:
        raise
    except Exception as exc:
        raise ToolArgumentsInvalid(f"the check of {tool.name} failed: {type(exc).__name__}: {exc}") from exc

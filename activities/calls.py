"""What a tool call is known by in the ledger, and the arguments it was given. Activities that carry one out use it."""

from __future__ import annotations

import json
from typing import Any

from holdfast.activities.deps import Deps, Here
from holdfast.contracts import ToolStep
from holdfast.errors import ToolArgumentsInvalid
from holdfast.ids import args_hash, effect_key
from holdfast.memory import decisions, threads
from holdfast.memory.ledger import Step
from holdfast.tools.tool import AnyTool

__all__ = ["arguments_of", "fitting", "step_of"]


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
            f"the arguments of call {inp.call_id} in the database are not the ones it was made or approved with, so "
            "nothing was done. Look at who writes there."
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

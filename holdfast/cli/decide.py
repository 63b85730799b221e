"""The commands by which a person decides: approve, reject, stop, resolve. Each returns the line to print."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from holdfast.cli.follow import me
from holdfast.cli.show import watch_end
from holdfast.cli.text import call_text, short
from holdfast.errors import InvalidInput

if TYPE_CHECKING:
    from holdfast.client import Client, RunHandle
    from holdfast.contracts import Receipt

__all__ = ["approve", "parse_args", "reject", "resolve", "stop"]

_STOPPING = 10.0  # seconds that `stop` waits to report the end


def parse_args(text: str | None) -> dict[str, Any] | None:
    """Return edited arguments.

    Raises:
        InvalidInput: they are no JSON object.

    """
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise InvalidInput(f"--args is not JSON ({exc}). Write an object, like '{{\"amount\": 20}}'.") from None
    if not isinstance(value, dict):
        raise InvalidInput("--args must be a JSON object with all arguments of the call, like '{\"amount\": 20}'.")
    return value


async def approve(client: Client, run_id: str, call: str | None, args: dict[str, Any] | None) -> str:
    """Approve a pending call."""
    run = await client.get(run_id)
    receipt = await run.approve(call, args=args, actor=me())
    return f"approved {await _call(run, receipt)}"


async def reject(client: Client, run_id: str, call: str | None, reason: str) -> str:
    """Reject a pending call."""
    run = await client.get(run_id)
    receipt = await run.reject(call, reason=reason, actor=me())
    return f"rejected {await _call(run, receipt)}"


async def _call(run: RunHandle, receipt: Receipt) -> str:
    for approval in await run.approvals():
        if approval.step_no == receipt.step_no:
            return f"step {receipt.step_no} of run {short(run.run_id)}: {call_text(approval.tool, approval.args, 200)}"
    return f"step {receipt.step_no} of run {short(run.run_id)}"


async def stop(client: Client, run_id: str, reason: str | None) -> str:
    """Stop a run and wait for its end, for a while."""
    run = await client.get(run_id)
    await run.stop(reason, actor=me())
    status = await watch_end(run, _STOPPING)
    if status.ended:
        return f"run {short(run.run_id)} has ended: {status.state.replace('_', ' ')}"
    return f"run {short(run.run_id)} is stopping: a step in flight is let go"


async def resolve(client: Client, run_id: str, step: int, word: dict[str, Any]) -> str:
    """Settle a call in doubt, or in conflict."""
    run = await client.get(run_id)
    receipt = await run.resolve(step, **word, actor=me())
    said = next(name for name, value in word.items() if value is not None and value is not False)
    return f"step {receipt.step_no} of run {short(run.run_id)} is resolved: {said.replace('_', ' ')}"

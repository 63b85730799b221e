"""The commands by which a person decides: approve, reject, stop, resolve. Each returns what it did."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.cli.edit import approve_edited
from holdfast.cli.prompt import ask_line, can_ask, me
from holdfast.cli.show import watch_end
from holdfast.cli.text import call_text, short
from holdfast.errors import DecisionRefused, InvalidInput

if TYPE_CHECKING:
    from rich.console import Console

    from holdfast.client import Client, RunHandle
    from holdfast.contracts import Receipt

__all__ = ["Done", "approve", "edit", "parse_args", "reject", "resolve", "stop"]

_STOPPING = 10.0  # seconds that `stop` waits to report the end


@dataclass(frozen=True, slots=True)
class Done:
    """What a command did: a line for a person, and the same for scripts."""

    line: str
    data: dict[str, Any]


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


async def approve(client: Client, run_id: str, call: str | None, args: dict[str, Any] | None) -> Done:
    """Approve a pending call."""
    run = await client.get(run_id)
    return await _decided(run, await run.approve(call, args=args, actor=me()), "approved")


async def edit(client: Client, run_id: str, call: str | None, console: Console) -> Done | None:
    """Approve a pending call with the arguments that a person writes in their editor; None if they send nothing.

    Raises:
        InvalidInput: nobody sits at a terminal, or there is no editor.
        DecisionRefused: no such call waits.

    """
    if not can_ask():
        raise InvalidInput("--edit opens an editor and asks before it sends: it needs a terminal. Else use --args.")
    run = await client.get(run_id)
    waiting = [found for found in await run.approvals() if found.state == "pending"]
    if call is not None:
        waiting = [found for found in waiting if call == str(found.step_no)]
    if len(waiting) != 1:
        name = short(run.run_id)
        raise DecisionRefused(
            f"run {name} has {len(waiting) or 'no'} approvals pending: say which step (`holdfast show {name}`)"
            if waiting
            else f"no approval{f' of {call!r}' if call else ''} is pending in run {name}"
        )
    receipt = await approve_edited(run, waiting[0], console, lambda question: ask_line(console, question))
    return await _decided(run, receipt, "approved") if receipt is not None else None


async def reject(client: Client, run_id: str, call: str | None, reason: str) -> Done:
    """Reject a pending call."""
    run = await client.get(run_id)
    return await _decided(run, await run.reject(call, reason=reason, actor=me()), "rejected")


async def _decided(run: RunHandle, receipt: Receipt, what: str) -> Done:
    data = {"run_id": run.run_id, "step": receipt.step_no, "decision": what, "decision_id": receipt.decision_id}
    line = f"{what} step {receipt.step_no} of run {short(run.run_id)}"
    for approval in await run.approvals():
        if approval.step_no == receipt.step_no:
            line += f": {call_text(approval.tool, approval.args, 200)}"
            data |= {"tool": approval.tool, "args": approval.args, "edited": approval.edited}
    return Done(line, data)


async def stop(client: Client, run_id: str, reason: str | None) -> Done:
    """Stop a run and wait for its end, for a while."""
    run = await client.get(run_id)
    await run.stop(reason, actor=me())
    status = await watch_end(run, _STOPPING)
    data = {"run_id": run.run_id, "state": status.state, "ended": status.ended}
    if status.ended:
        return Done(f"run {short(run.run_id)} has ended: {status.state.replace('_', ' ')}", data)
    return Done(f"run {short(run.run_id)} is stopping: a step in flight is let go", data)


async def resolve(client: Client, run_id: str, step: int, word: dict[str, Any]) -> Done:
    """Settle a call in doubt."""
    run = await client.get(run_id)
    receipt = await run.resolve(step, **word, actor=me())
    said = next(name for name, value in word.items() if value is not None and value is not False)
    return Done(
        f"step {receipt.step_no} of run {short(run.run_id)} is resolved: {said.replace('_', ' ')}",
        {"run_id": run.run_id, "step": receipt.step_no, "outcome": said, "decision_id": receipt.decision_id},
    )

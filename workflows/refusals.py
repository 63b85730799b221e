"""What becomes of a person's word that a thread refuses: its sender is told why, and the audit keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from holdfast.contracts import Activity, AuditRefusals, Carry, Decision, RefusedWord, Resolution, StopRequest
from holdfast.errors import InvalidInput
from holdfast.workflows import options
from holdfast.workflows.inbox import BATCH

__all__ = ["Refusals"]

_MOST = 1000  # words that wait for their audit row; with PostgreSQL away, what comes beyond is not audited


class Refusals:
    """Audits refused words in the background, many by one activity: Temporal bounds how many may be pending."""

    def __init__(self, carry: Carry, keep: Callable[[asyncio.Task[None]], None]) -> None:
        self._carry = carry
        self._keep = keep
        self._words: list[RefusedWord] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, word: Decision | Resolution | StopRequest, exc: InvalidInput) -> ApplicationError:
        """Have a refused word audited, and return the refusal as its sender gets it."""
        self.note(word, str(exc))
        return ApplicationError(str(exc), type=type(exc).__name__, non_retryable=True)

    def note(self, word: Decision | Resolution | StopRequest, why: str) -> None:
        """Have a word audited that changes nothing."""
        if len(self._words) < _MOST:
            self._words.append(_refused(self._carry, word, why))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._audit())
            self._keep(self._task)

    async def _audit(self) -> None:
        while self._words:
            batch = self._words[:BATCH]
            await options.execute(
                Activity.AUDIT_REFUSALS,
                AuditRefusals(words=batch),
                type(None),
                self._carry.limits,
                summary=f"audit {len(batch)} refused",
            )
            del self._words[: len(batch)]


def _refused(carry: Carry, word: Decision | Resolution | StopRequest, why: str) -> RefusedWord:
    about: dict[str, str]
    if isinstance(word, Resolution):
        action, step, about = "resolve", str(word.step_no), {"outcome": word.outcome}
    elif isinstance(word, StopRequest):
        action, step, about = "stop", "", {} if word.reason is None else {"reason": word.reason}
    else:
        action, step, about = "approve" if word.approve else "reject", word.call_id or "", {"call": word.call_id or ""}
    return RefusedWord(
        id=workflow.uuid4().hex,
        decision_id=word.decision_id,
        action=action,
        run_id=word.run_id or (carry.current.run_id if carry.current else None),
        step_no=int(step) if step.isascii() and step.isdecimal() and len(step) < 10 else None,
        actor=word.actor,
        why=why,
        about=about,
    )

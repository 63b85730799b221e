"""The approvals that a chat is asking for: how they are shown, and which one a command means. Only `chat` uses it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.cli.text import short
from holdfast.errors import InvalidInput

if TYPE_CHECKING:
    from holdfast.client import RunHandle

__all__ = ["Question", "Questions", "is_bare_answer"]

_BARE = frozenset({"y", "yes", "n", "no", "e", "edit", "ok", "okay", "approve", "reject"})


def is_bare_answer(text: str) -> bool:
    """Whether *text* may be meant for the model's question as well as for ours: it decides nothing."""
    return text.lower().strip(" .!,") in _BARE


@dataclass(frozen=True, slots=True)
class Question:
    """One call that waits."""

    run: RunHandle
    step: int
    call: str

    @property
    def key(self) -> tuple[str, int]:
        """Return what it is known by."""
        return self.run.run_id, self.step


class Questions:
    """Those that wait, oldest first. A command without a step counts only if its one question was there before it."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], Question] = {}
        self._shown: set[tuple[str, int]] = set()
        self._before: frozenset[tuple[str, int]] = frozenset()

    def __bool__(self) -> bool:
        return bool(self._open)

    def add(self, question: Question) -> None:
        """Ask."""
        self._open[question.key] = question

    def drop(self, run_id: str, step: int | None = None) -> None:
        """Forget what was decided: one call, or all of a run that has ended."""
        self._open = {key: asked for key, asked in self._open.items() if key[0] != run_id or step not in (None, key[1])}

    def clear(self) -> None:
        """Forget all."""
        self._open.clear()

    def head(self, width: int) -> list[tuple[str, str]]:
        """Return what stands above the line that is typed on, as (style, text)."""
        if not self._open:
            return []
        self._shown.update(self._open)
        first = next(iter(self._open.values()))
        more = f" ({len(self._open) - 1} more after it)" if len(self._open) > 1 else ""
        how = "/approve, /reject REASON or /edit"
        if len(self._open) > 1:
            how = f"/approve {first.step}, /reject {first.step} REASON or /edit {first.step}"
        lines = textwrap.wrap(f"approve {first.call}, step {first.step}{more}? {how}", max(width - 3, 20))
        return [("bold fg:ansiyellow", f"  {line}\n") for line in lines]

    def line_begun(self) -> None:
        """Hear that the person begins to type: what is asked from now on, they have not seen."""
        self._before = frozenset(self._shown & set(self._open))

    def meant(self, words: str) -> tuple[Question, str]:
        """Return the question that a command is about, and its words but the step.

        Raises:
            InvalidInput: none waits, or it is not clear which is meant.

        """
        if not self._open:
            raise InvalidInput("nothing waits for a decision")
        step, _, rest = words.partition(" ")
        if step.isascii() and step.isdecimal():
            found = [asked for asked in self._open.values() if asked.step == int(step)]
            if len(found) == 1:
                return found[0], rest.strip()
            if found:
                commands = " or ".join(f"holdfast approve {short(asked.run.run_id)} {step}" for asked in found)
                raise InvalidInput(f"several runs wait at step {step}: use another terminal and run {commands}")
            raise InvalidInput(f"step {step} does not wait for a decision")
        if len(self._open) == 1 and set(self._open) <= self._before:
            return next(iter(self._open.values())), words
        waiting = ", ".join(f"{asked.step} ({asked.call})" for asked in self._open.values())
        raise InvalidInput(
            f"nothing was decided: give the step, as in /approve {next(iter(self._open))[1]}. Waiting: {waiting}"
        )

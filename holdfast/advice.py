"""Advice that results carry for the model only. It is in one place, so that people are shown results without it."""

from __future__ import annotations

__all__ = ["CALL_AGAIN", "DO_NOT_REPEAT", "DO_WITHOUT", "GO_ON", "OTHERS_NEXT", "edited_note", "for_person"]

CALL_AGAIN = "Call it again with different arguments."
DO_NOT_REPEAT = "Do not repeat it."
DO_WITHOUT = "Continue without asking it."
GO_ON = "Continue without it."
OTHERS_NEXT = "Make the other calls in your next reply."

_ADVICE = (CALL_AGAIN, DO_NOT_REPEAT, DO_WITHOUT, GO_ON, OTHERS_NEXT)
_ERROR = "error: "
_ARGS_TOLD = 2000  # characters of a person's arguments that the model is told before the result


def for_person(text: str) -> str:
    """Return an error as it is shown to a person: without the prefix `error:` and without the advice to the model."""
    told = text.removeprefix(_ERROR)
    for advice in _ADVICE:
        told = told.replace(f" {advice}", "")
    return told.rstrip()


def edited_note(args: str) -> str:
    """Return the line before a result that tells the model to which arguments (JSON) a person changed its own."""
    cut = args if len(args) <= _ARGS_TOLD else f"{args[:_ARGS_TOLD]}…"
    return f"[a person changed the arguments of this call: {cut}]\n"

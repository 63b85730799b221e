"""What is added to a result for the model alone, in one place, so that a person can be shown the result without it."""

from __future__ import annotations

__all__ = ["CALL_AGAIN", "DO_NOT_REPEAT", "DO_WITHOUT", "GO_ON", "OTHERS_NEXT", "edited_note", "for_person"]

CALL_AGAIN = "Call it again with others."
DO_NOT_REPEAT = "Do not repeat it."
DO_WITHOUT = "Do it without."
GO_ON = "Go on without it."
OTHERS_NEXT = "Make the others in the next."

_ADVICE = (CALL_AGAIN, DO_NOT_REPEAT, DO_WITHOUT, GO_ON, OTHERS_NEXT)
_ERROR = "error: "
_ARGS_TOLD = 2000  # characters of a person's arguments that the model is told before the result


def for_person(text: str) -> str:
    """Return an error as a person is told it: without the word `error:` and without the advice to the model."""
    told = text.removeprefix(_ERROR)
    for advice in _ADVICE:
        told = told.replace(f" {advice}", "")
    return told.rstrip()


def edited_note(args: str) -> str:
    """Return the line before a result that tells the model which arguments (JSON) a person put in place of its own."""
    cut = args if len(args) <= _ARGS_TOLD else f"{args[:_ARGS_TOLD]}…"
    return f"[a person changed the arguments of this call: {cut}]\n"

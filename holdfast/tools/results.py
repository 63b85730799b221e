"""From what a tool returned to the text a model reads. The activities call it once the tool has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from holdfast.errors import ToolAnsweredError, ToolResultInvalid

__all__ = ["ErrorResult", "result_text"]


@dataclass(frozen=True)
class ErrorResult:
    """Returned by a tool whose call was made and has ended with an error of the remote's own: done, and failed."""

    text: str


def _storable(text: str) -> str:
    """Replace what no PostgreSQL text can hold: NUL and halves of surrogate pairs."""
    if "\x00" in text:
        text = text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8") if _broken(text) else text


def _broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def result_text(tool: str, value: Any, limit: int) -> str:
    """Return the text of a tool's result: text as it is, None as `done`, anything else as JSON.

    *limit* is in bytes of UTF-8 (`settings.result_max`).

    Raises:
        ToolResultInvalid: the value has no text form or is too long. The tool has run all the same: its effect
            stands, so the ledger row is done, with this message as the result.
        ToolAnsweredError: the value is an ErrorResult. The row is done as well, and the model reads the error.

    """
    if value is None:
        return "done"
    if isinstance(value, ErrorResult):
        raise ToolAnsweredError(result_text(tool, value.text, limit))
    if isinstance(value, str):
        text = _storable(value)
    elif isinstance(value, bytes | bytearray | memoryview):
        raise ToolResultInvalid(
            f"{tool} ran, but returned {len(value)} bytes, which a model cannot read. "
            "The tool must return text, or values that can be written as JSON."
        )
    else:
        try:
            text = _storable(to_json(value, inf_nan_mode="strings").decode())
        except (PydanticSerializationError, UnicodeError, ValueError, RecursionError) as exc:
            raise ToolResultInvalid(
                f"{tool} ran, but returned a {type(value).__name__} that cannot be written as JSON ({exc}). "
                "The tool must return text, numbers, lists, dicts, dataclasses or pydantic models."
            ) from None
    size = len(text) if text.isascii() else len(text.encode())
    if size > limit:
        raise ToolResultInvalid(
            f"{tool} ran, but its result of {size:,} bytes is over the limit of {limit:,} (HOLDFAST_RESULT_MAX). "
            "Ask it for less, or raise the limit."
        )
    return text

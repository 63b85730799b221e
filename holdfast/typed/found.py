"""Finds the one JSON value in a model's words: bare, fenced, or with words around it. Only this room calls it."""

from __future__ import annotations

import json
import re
from typing import Any

from holdfast.ids import canonical_json

__all__ = ["NotOneJson", "find_json"]

_FENCE = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)
_MOST_STARTS = 200  # braces looked at, each to its end: a reply of nothing but braces must not take for ever


class NotOneJson(ValueError):
    """The text has no JSON value, or several, or one that cannot be passed on. The message is fit for the model."""


def find_json(text: str) -> Any:  # Any: JSON
    """Return the one JSON value in *text*.

    The whole text, else the one fenced block that is JSON, else the one object (or where there is none the one array)
    that stands among the words. The same text always gives the same value: it is read again wherever it is needed.

    Raises:
        NotOneJson: there is not exactly one, or it has what no JSON text can hold (NaN, half a character).

    """
    stripped = text.strip()
    try:
        return _sound(_loads(stripped))
    except ValueError as exc:
        whole = str(exc)
    fenced = list(_values(_FENCE.findall(stripped)))
    for found in (fenced, _among(stripped, "{"), _among(stripped, "[")):
        if len(found) > 1:
            raise NotOneJson(f"there are {len(found)} JSON values in it, and one is wanted")
        if found:
            return _sound(found[0])
    if not stripped:
        raise NotOneJson("it is empty")
    raise NotOneJson(f"it is not JSON ({whole})" if stripped[0] in '{["' else "there is no JSON in it")


def _values(texts: list[str]) -> list[Any]:
    found = []
    for text in texts:
        try:
            found.append(_loads(text.strip()))
        except ValueError:
            continue
    return found


def _among(text: str, opening: str) -> list[Any]:
    """Return the outermost values that begin with *opening*."""
    found: list[Any] = []
    at = text.find(opening)
    for _ in range(_MOST_STARTS):
        if at < 0:
            break
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            at = text.find(opening, at + 1)
            continue
        found.append(value)
        at = text.find(opening, end)
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _loads(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _sound(value: Any) -> Any:
    try:
        canonical_json(value).encode()
    except (ValueError, RecursionError) as exc:  # 1e999 is read as infinity; \ud800 alone has no bytes
        raise NotOneJson(f"it holds something that no JSON text can: {exc}") from None
    return value

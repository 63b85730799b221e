"""Weighs JSON as it comes in, before anything parses it. The transports ask it.

A message of a few megabytes can stand for many millions of values: 16 MB of `{},{},…` keep the loop busy for seconds
and take 2 GB. Long texts cost nothing, so bytes alone say little.
"""

from __future__ import annotations

import re

__all__ = ["Weight"]

# The rest of a text, up to its end or to half an escape. No text goes over a line: so what looks like one in another
# line of an event, which is no JSON, hides nothing.
_REST = re.compile(rb'[^"\\\n]*(?:\\[^\n][^"\\\n]*)*')
_OBJECT = 8  # an object or list weighs as much as so many plain values


class Weight:
    """The values in a message, counted outside of texts; it may come in pieces."""

    def __init__(self, most: int) -> None:
        """Allow *most* plain values."""
        self._left = most
        self._in_text = False
        self._escaped = False

    def add(self, piece: bytes | bytearray) -> bool:
        """Take the next piece; False if it has become too much."""
        at = 0
        while at < len(piece):
            if self._in_text:
                rest = _REST.match(piece, at + self._escaped)
                end = rest.end() if rest is not None else len(piece)
                self._escaped = end == len(piece) - 1 and piece[end : end + 1] == b"\\"
                self._in_text = end >= len(piece) or self._escaped
                at = len(piece) if self._in_text else end + 1
                continue
            end = piece.find(b'"', at)
            self._in_text = end >= 0
            end = end if end >= 0 else len(piece)
            opened = piece.count(b"{", at, end) + piece.count(b"[", at, end)
            self._left -= 1 + piece.count(b",", at, end) + _OBJECT * opened
            if self._left < 0:
                return False
            at = end + 1
        return True

"""Makes characters visible that a person who decides would not see, or that reorder the others. Pure functions.

Arguments of a tool call come from a model, which may repeat what a stranger wrote: what is shown must be what is done.
"""

from __future__ import annotations

import json
import re

__all__ = ["first_line", "fitted", "is_fitted", "visible"]

_LEFT_OUT = "characters are left out here"
_NOTE = 80  # characters of the note that says so

# Control characters but newline and tab, soft hyphen, every blank but U+0020, fillers drawn as nothing, zero-width and
# bidirectional characters, line separators, variation selectors, tags: Unicode's Cf and the like, written out, since
# workflow code must not depend on the tables of a Python version.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\xa0\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f"
    "\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def visible(text: str) -> str:
    r"""Return *text* with each hidden character as its JSON escape, such as `\u202e`: in JSON it means the same."""
    return _HIDDEN.sub(lambda found: json.dumps(found[0])[1:-1], text)


def first_line(text: str, most: int) -> str:
    """Return the first line of *text* that has words, at most *most* characters, to be shown."""
    line = visible(" ".join(next((line for line in text.splitlines() if line.strip()), "").split()))
    return line if len(line) <= most else line[: most - 1] + "…"


def fitted(text: str, most: int) -> str:
    """Return *text* whole, or in *most* characters its beginning and its end, with how much is left out between them.

    The end is never left out: whoever wrote the text may have put there what should not be seen.
    """
    if len(text) <= most:
        return text
    half = max(most - _NOTE, 0) // 2
    left_out = f"[… {len(text) - 2 * half:,} of {len(text):,} {_LEFT_OUT} …]"
    return f"{text[:half]}\n{left_out}\n{text[len(text) - half :]}"


def is_fitted(text: str) -> bool:
    """Whether *text* looks as if `fitted` had left something out."""
    return _LEFT_OUT in text

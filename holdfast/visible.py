"""Makes characters visible that a person who decides would not see, or that reorder the others. Pure functions.

Arguments of a tool call come from a model, which may repeat what a stranger wrote: what is shown must be what is done.
"""

from __future__ import annotations

import json
import re

__all__ = ["first_line", "fitted", "hides", "is_fitted", "visible", "without_hidden"]

_LEFT_OUT = "characters are left out here"
_NOTE = 80  # characters of the note that says so

# Control characters but newline and tab, soft hyphen, fillers drawn as nothing, zero-width and
# bidirectional characters, line separators, variation selectors, tags: Unicode's Cf and the like, written out, since
# workflow code must not depend on the tables of a Python version.
_CHARACTERS = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U00016fe4\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff"
)
_BLANKS = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"  # ordinary in texts, but not to be told from U+0020
_HIDDEN = re.compile(f"[{_CHARACTERS}{_BLANKS}]")
# In ordinary texts emoji have a variation selector or a joiner, at most one of each at a place; lines may end in CR LF.
_OF_EMOJI = "\ufe00-\ufe0f\u200d"
_UNUSUAL = re.compile(rf"(?!\r\n|[{_OF_EMOJI}])[{_CHARACTERS}]|[\ufe00-\ufe0f]{{2,}}|\u200d{{2,}}|[{_OF_EMOJI}]{{3,}}")


def hides(text: str) -> bool:
    """Whether *text* has characters in it that no reader sees, other than those of ordinary texts."""
    return _UNUSUAL.search(text) is not None


def without_hidden(text: str) -> str:
    """Return *text* without the characters that no reader sees, but for those of ordinary texts."""
    return _UNUSUAL.sub("", text)


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

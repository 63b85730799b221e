"""Reads English requests without a language model: terms, clauses, sums. The offline model's other parts use it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

__all__ = [
    "NO_STOP",
    "Clause",
    "clauses",
    "covered",
    "expression",
    "names",
    "paths_in",
    "quoted",
    "stem",
    "stems",
    "terms",
    "wordset",
]


def wordset(text: str) -> frozenset[str]:
    """Return the words of a list written as one text."""
    return frozenset(text.split())


_STOP = wordset(
    "a about above after again all also am an and any are as at be because been before being below between both but by "
    "can cannot could did do does doing down during each few for from further get give had has have having he her here "
    "hers him his how i if in into is it its itself just kindly let like may me might more most must my myself no nor "
    "not now of off on once only or other our ours out over own please quote s same say says she should so some such t "
    "tell than that the their theirs them then there these they this those through to too under until up us very was "
    "we were what whats when where whether which while who whom whose why will with would you your yours"
)
_ASKING = wordset(
    "calculate check compare compute count describe explain find figure get give list look read recall research search "
    "see show summarise summarize tell translate work quote cite lookup determine identify name answer"
)
_ACTING = wordset(
    "add append apply approve archive assign ban block book buy call cancel charge close comment commit confirm copy "
    "create credit delete deploy disable drop edit email enable escalate execute export file forget grant import "
    "insert install invite issue keep kill label launch log make mark message modify move notify open order pay ping "
    "place post print promote publish purchase push put raise record refund register reject release remember remind "
    "remove rename reopen reply report request reserve reset resolve restart return revoke run save schedule send set "
    "share ship shut sign start stop store submit subscribe tag text transfer trigger undo unsubscribe update upgrade "
    "upload void withdraw write"
)
_FILLER = re.compile(
    r"^(?:(?:please|then|also|and|so|now|ok(?:ay)?|hi|hello|hey|kindly|next|finally|first|afterwards?|yes)\b[,:]?\s+)*"
    r"(?:(?:can|could|would|will) you\b\s*|i(?:'d| would) like you to\s+|i (?:want|need) you to\s+"
    r"|you (?:should|must|may|can)\s+|let'?s\s+|go ahead and\s+|(?:make|be) sure (?:to|you)\s+|help me (?:to )?)?"
    r"(?:(?:please|kindly|also|then)\b[,:]?\s+)*",
    re.IGNORECASE,
)
_WISH = re.compile(r"^i(?:'d| would)?\s+(?:like|want|need)\s+(?:a|an|my|the|to)\b", re.IGNORECASE)
_WH = r"(?:what|who|whom|whose|which|when|where|why|how|is|are|was|were|does|do|did|has|have|can|could|should)"
_NEGATED = re.compile(r"^(?:do not|don['\u2019]?t|never|no need to|without)\b", re.IGNORECASE)
NO_STOP = "".join(
    rf"(?<!\b{word}\.)" for word in ("Dr", "Mr", "Mrs", "Ms", "Prof", "St", "No", "Nr", "vs", "e\\.g", "i\\.e")
)
"""Before a gap between sentences: the full stop there is not that of one of these."""

_PATH = re.compile(r"(?<![\w/@.])(?:\.{0,2}/)?(?:[\w.-]+/)*[\w-][\w.-]*\.[A-Za-z][A-Za-z0-9]{0,7}(?![\w@/])")


def stem(word: str) -> str:
    """Return the word without the endings that English hangs on it; rough, and the same for query and text."""
    word = word.casefold()
    for ending, least in (("ing", 4), ("edly", 3), ("ied", 2), ("ed", 3), ("ies", 2), ("sses", 3), ("s", 3), ("ly", 4)):
        if word.endswith(ending) and not word.endswith("ss") and len(word) - len(ending) >= least:
            word = word[: -len(ending)] + ("y" if ending in ("ied", "ies") else "")
            break
    if len(word) > 4 and word[-1] == word[-2] and word[-1] not in "ls":
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


@lru_cache(maxsize=4096)
def _terms(text: str) -> tuple[str, ...]:
    words = re.findall(r"[^\W_]+", re.sub(r"['\u2019]s\b", "", text).casefold())
    return tuple(dict.fromkeys(word for word in words if word not in _STOP and (len(word) > 1 or word.isdigit())))


def terms(text: str) -> list[str]:
    """Return the words of a text that carry meaning, each once, in order."""
    return list(_terms(text))


def stems(text: str) -> frozenset[str]:
    """Return the stems of a text's terms."""
    return frozenset(stem(word) for word in _terms(text))


def covered(wanted: str, found: frozenset[str]) -> bool:
    """Tell whether a stem occurs among stems, or begins or continues one: deliver, delivery."""
    if wanted in found:
        return True
    if len(wanted) < 5 or wanted.isdigit():
        return False
    return any(len(other) >= 5 and (other.startswith(wanted) or wanted.startswith(other)) for other in found)


def names(text: str) -> list[str]:
    """Return the words that name something: with digits, or capitalised within a sentence."""
    found = []
    for match in re.finditer(r"[\w][\w.-]*\w|\w", text):
        word = match[0]
        before = text[: match.start()].rstrip("\"'\u201c\u2018( ")
        opens = not before or before[-1] in ".!?:;\n"
        if any(c.isdigit() for c in word) or (word[0].isupper() and not opens and word.casefold() not in _STOP):
            found.append(word)
    return list(dict.fromkeys(found))


def quoted(text: str) -> list[str]:
    """Return what stands in quotation marks."""
    found = re.findall(
        r"\"([^\"\n]+)\"|\u201c([^\u201d\n]+)\u201d|\u2018([^\u2019\n]+)\u2019|`([^`\n]+)`|(?<!\w)'([^'\n]+)'(?!\w)",
        text,
    )
    return [next(part for part in groups if part) for groups in found]


def paths_in(text: str) -> list[str]:
    """Return the file paths a text mentions: names with an extension, but no addresses and no versions."""
    text = re.sub(r"https?://\S+|\S+@\S+", " ", text)
    return list(dict.fromkeys(path for path in _PATH.findall(text) if path.casefold() not in ("e.g", "i.e")))


# ------------------------------------------------------------------------------------------------------------ clauses


@dataclass(frozen=True, slots=True)
class Clause:
    """A part of a request that asks for one thing.

    `kind`: ask (a question, or an order to look something up), act (an order to do something), wish ("I want a
    refund"), tell (a statement). `verb` is the order's verb. `condition` is what "if …" makes it depend on.
    """

    text: str
    kind: str
    verb: str = ""
    condition: str = ""
    negated: bool = False


def clauses(request: str, verbs: frozenset[str] = frozenset()) -> list[Clause]:
    """Split a request into clauses; *verbs* are further verbs that an order may begin with: those of the tools."""
    known = _ACTING | _ASKING | verbs
    order = "|".join(sorted(map(re.escape, known), key=len, reverse=True))
    join = re.compile(
        r"(?:,\s*|\s+)(?:and|then|but|and then|and also|, then)\s+"
        rf"(?=(?:please\s+|also\s+|then\s+)*(?:{order})\b(?!\s+(?:and|or)\b))"
        rf"|,\s+(?=please\s+(?:{order})\b)|(?:,\s*|\s+)and\s+(?={_WH}\b)",
        re.IGNORECASE,
    )
    found: list[Clause] = []
    for sentence in re.split(rf"(?<=[.!?;]){NO_STOP}\s+|\n+", request):
        marked = sentence.strip()
        if not marked:
            continue
        asked = marked.endswith("?")
        parts = (part.strip(" ,;") for part in join.split(marked))
        found.extend(_clause(part, known, asked=asked) for part in parts if part)
    return found


def _clause(text: str, known: frozenset[str], *, asked: bool) -> Clause:
    condition = ""
    body = text.rstrip(".!?; ")
    if found := re.match(r"(?:and |but |then )?(?:only )?if\s+(.+?),\s*(?:then\s+)?(.+)$", body, re.IGNORECASE):
        condition, body = found[1], found[2]
    elif found := re.search(r",?\s+(?:but )?(?:only )?(?:if|provided that|as long as)\s+(.+)$", body, re.IGNORECASE):
        condition, body = found[1], body[: found.start()]
    polite = _FILLER.match(body)
    rest = body[polite.end() :] if polite else body
    ordered = bool(polite and re.search(r"\byou\b", polite[0], re.IGNORECASE))
    negated = bool(_NEGATED.match(rest))
    if negated:
        rest = _NEGATED.sub("", rest).strip()
    first = (re.match(r"[A-Za-z]+", rest) or [""])[0].casefold()
    if first in known and (not asked or ordered or first not in ("can", "could", "do", "have", "is")):
        acting = first not in _ASKING
        return Clause(rest, "act" if acting else "ask", first, condition, negated)
    if _WISH.match(body):
        return Clause(body, "wish", "", condition, negated)
    if asked or re.match(rf"{_WH}\b", rest, re.IGNORECASE):
        return Clause(text, "ask")
    return Clause(text, "tell")


# --------------------------------------------------------------------------------------------------------------- sums

_WORDS = (
    (r"\bsquare root of\s+(\S+)", r"sqrt(\1)"),
    (r"\bto the power of\b", "**"),
    (r"\bsquared\b", "**2"),
    (r"(\d[\d.]*)\s*(?:%|percent|per cent)\s+of\b", r"\1/100*"),
    (r"\bplus\b", "+"),
    (r"\bminus\b", "-"),
    (r"\b(?:times|multiplied by)\b|\u00d7", "*"),
    (r"\b(?:divided by)\b|\u00f7", "/"),
    (r"(?<=\d)\s*x\s*(?=\d)", "*"),
    (r"\^", "**"),
)
_SUM = re.compile(
    r"(?:sqrt\()?[-(\s]*\d[\d.]*\)*(?:\s*(?:\*\*|//|[-+*/%])\s*(?:sqrt\()?[-(]*\s*\d[\d.]*\)*)+|sqrt\(\d[\d.]*\)"
)


def expression(text: str) -> str | None:
    """Return the sum a text asks for, in the signs a calculator knows; None if there is none."""
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    for pattern, sign in _WORDS:
        plain = re.sub(pattern, sign, plain, flags=re.IGNORECASE)
    plain = re.sub(r"\b\d{4}-\d{2}-\d{2}\b", " ", plain)  # a date is no subtraction
    found = [match[0].strip().rstrip(".") for match in _SUM.finditer(plain)]
    found = [text for text in found if re.search(r"[+*/%]|sqrt|\s-\s|\d-\d", text)]
    return max(found, key=len) if found else None

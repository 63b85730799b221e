"""What the tools returned, as passages with their sources, and how well each answers; the offline model uses it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from holdfast.llm.offline.text import NO_STOP, covered, names, stem, stems, terms, wordset
from holdfast.memory.embeddings import embed_texts

__all__ = ["Call", "Evidence", "Passage", "Ranked", "hits_of", "similarity"]

_MOST = 4000  # passages weighed
_LONG = 400  # characters of a passage that are quoted
_HIT = re.compile(r"^(?P<path>(?![\s\d]*:)[^:\n]{1,400}):(?P<line>\d+):[ \t]?(?P<text>.*)$")
_HEADER = re.compile(r"^(?P<path>.+?) \(lines (?P<start>\d+)-\d+ of \d+\)$")
_NUMBERED = re.compile(r"^\s*(\d+)(?:[:|\t→]|\s\|)\s?(.*)$")
_FAILED = re.compile(  # how results begin that are none
    r"^\W*(?:tool )?(?:error|failed|failure|refused|rejected|invalid|denied|interrupted|abandoned|exception)\s*:", re.I
)
_NOTHING = re.compile(
    r"^\W*(?:nothing|no)\b.{0,80}\b(?:found|match|matches|results?|memor\w+|hits?)\b|^\W*nothing\b", re.I
)
_LISTED = re.compile(r"^\s*(?:[-*+]\s|\d+[.)]\s|>|\|)\s*")
_RULER = re.compile(r"^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")
_WEAK = 0.35  # how much a word counts that says little about what is asked for
_WEAK_WORDS = frozenset(
    stem(word)
    for word in wordset(
        "become big call come default describe explain fast good happen have help large largest long make many mean "
        "much need new old really say small sum summary sure take thing time try use used want way work"
    )
)


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call of this turn and what it returned."""

    name: str
    arguments: dict[str, Any]
    content: str

    @property
    def failed(self) -> bool:
        """Tell whether the tool returned an error."""
        if _FAILED.match(self.content[:200]):
            return True
        parsed = _json(self.content)
        return isinstance(parsed, dict) and bool(parsed.get("error"))

    @property
    def empty(self) -> bool:
        """Tell whether it found nothing."""
        return (
            not self.content.strip() or bool(_NOTHING.match(self.content[:200])) or self.content.strip() in "[]{}null"
        )

    @property
    def spelled(self) -> str:
        """Return the call as one would write it."""
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"


@dataclass(frozen=True, slots=True)
class Passage:
    """A sentence, or one line of a table or record. `around` is what it stands under: path and headings."""

    text: str
    tool: str
    path: str | None = None
    line: int | None = None
    spelled: str = ""
    around: str = ""
    heading: bool = False

    @property
    def source(self) -> str:
        """Return where it comes from."""
        return f"{self.path}:{self.line}" if self.path and self.line else self.path or self.spelled or self.tool

    @property
    def shown(self) -> str:
        """Return the text, cut if it is very long."""
        return self.text if len(self.text) <= _LONG else self.text[:_LONG].rsplit(" ", 1)[0] + " …"


@dataclass(frozen=True, slots=True)
class Ranked:
    """A passage with its score, 0 to about 1, and whether it may be given as an answer."""

    passage: Passage
    score: float
    answers: bool


def similarity(text: str, others: list[str]) -> list[float]:
    """Return the cosine of *text* with each other, by the words that carry meaning."""
    vectors = embed_texts([" ".join(terms(part)) for part in (text, *others)])
    return [float(value) for value in vectors[1:] @ vectors[0]]


@dataclass
class Evidence:
    """All that was returned in a turn."""

    passages: list[Passage] = field(default_factory=list)
    facts: list[tuple[str, Any]] = field(default_factory=list)
    read: list[tuple[str, int, int]] = field(default_factory=list)

    @classmethod
    def of(cls, calls: list[Call]) -> Evidence:
        """Read the results of calls; failed and empty ones say nothing."""
        evidence = cls()
        for call in calls:
            if not (call.failed or call.empty):
                evidence._add(call)
        # A line that a search found says less than the same line where the file was read: there it is a sentence.
        read = {(path, line) for path, start, end in evidence.read for line in range(start, end + 1)}
        evidence.passages = [p for p in evidence.passages if p.spelled or (p.path, p.line) not in read]
        return evidence

    def add_lines(self, lines: list[str], source: str) -> None:
        """Add texts that came without a call, such as memories."""
        self.passages += [Passage(line, source, spelled=source) for line in lines if line.strip()]

    def _add(self, call: Call) -> None:
        parsed = _json(call.content)
        if isinstance(parsed, (dict, list)):
            self._add_record(call, parsed)
            return
        text = parsed if isinstance(parsed, str) else call.content
        lines = text.splitlines()
        found = [match for line in lines if (match := _HIT.match(line))]
        if found and len(found) * 2 >= len([line for line in lines if line.strip()]):
            self.passages += [
                Passage(
                    words, call.name, match["path"], int(match["line"]), "", match["path"], match["text"][:1] == "#"
                )
                for match in found
                if (words := match["text"].strip(" #"))
            ]
            return
        path = next(
            (str(value) for name, value in call.arguments.items() if name in ("path", "file", "filename")), None
        )
        start = 1
        if lines and (header := _HEADER.match(lines[0])):
            path, start, lines = header["path"], int(header["start"]), lines[1:]
        numbered = [_NUMBERED.match(line) for line in lines if line.strip()]
        rows = list(enumerate(lines, start))
        if path and numbered and sum(map(bool, numbered)) >= 0.8 * len(numbered):
            rows = [(int(m[1]), m[2]) for line in lines if (m := _NUMBERED.match(line))]
        if path and rows:
            self.read.append((path, rows[0][0], rows[-1][0]))
        self.passages += _passages(rows, call.name, path, call.spelled)

    def _add_record(self, call: Call, parsed: Any) -> None:
        for entry in parsed if isinstance(parsed, list) else [parsed]:
            flat = list(_flat(entry))
            self.facts += flat
            text = "; ".join(f"{name}: {value}" if name else str(value) for name, value in flat)
            around = f"{call.name} {' '.join(str(value) for value in call.arguments.values())}"
            self.passages.append(Passage(text, call.name, spelled=call.spelled, around=around))

    def rank(self, question: str) -> list[Ranked]:
        """Return the passages, best first. A passage answers if it has enough of what the question names."""
        passages = self.passages[:_MOST]
        wanted = list(dict.fromkeys(stem(word) for word in terms(question)))
        if not passages or not wanted:
            return []
        inside = [stems(passage.text) for passage in passages]
        near = [stems(passage.around) for passage in passages]
        whole: dict[str | None, frozenset[str]] = {}  # the words of each file: a name may stand in another sentence
        for passage, found, context in zip(passages, inside, near, strict=True):
            if passage.path is not None:
                whole[passage.path] = whole.get(passage.path, frozenset()) | found | context
        spread = {word: sum(covered(word, found) for found in inside) for word in wanted}
        weight = {word: math.log(1 + (len(passages) + 1) / (1 + spread[word])) for word in wanted}
        weight = {word: _WEAK * w if word in _WEAK_WORDS else w for word, w in weight.items()}
        total = sum(weight.values())
        named = {stem(word) for name in names(question) for word in terms(name)} & set(wanted)
        meant = similarity(question, [passage.text for passage in passages])
        ranked = []
        for passage, found, context, meaning in zip(passages, inside, near, meant, strict=True):
            own = {word for word in wanted if covered(word, found)}
            other = {word for word in wanted if word not in own and covered(word, context)}
            share = sum(weight[word] for word in own) / total
            wider = share + sum(weight[word] for word in other) / total
            headed = sum(weight[word] for word in wanted if covered(word, context)) >= 0.8 * total
            score = 0.6 * share + (0.4 if headed else 0.15) * wider + 0.35 * max(0.0, meaning)
            score -= 0.25 if passage.heading else 0.1 if len(passage.text.split()) < 4 and not passage.spelled else 0.0
            if passage.text.rstrip().endswith("?"):
                score -= 0.15  # a question is seldom an answer
            about = own | other | {word for word in named if covered(word, whole.get(passage.path, frozenset()))}
            names_it = not named or 2 * len(named & about) >= len(named)
            enough = wider >= 0.5 or (wider >= 0.3 and meaning >= 0.45)
            ranked.append(Ranked(passage, score, (bool(own) or headed) and not passage.heading and names_it and enough))
        return sorted(ranked, key=lambda each: (not each.answers, -each.score))

    def answer(self, question: str, most: int = 3) -> list[Passage]:
        """Return the passages to quote for a question, best first; none if nothing answers it."""
        chosen: list[Passage] = []
        best = 0.0
        for each in self.rank(question):
            if not each.answers or len(chosen) == most:
                break
            best = best or each.score
            if each.score < 0.8 * best:
                break
            if not any(_same(each.passage, other) for other in chosen):
                chosen.append(each.passage)
        return chosen


def hits_of(calls: list[Call], question: str) -> list[tuple[str, int]]:
    """Return (path, line) of the files that search results name, the most promising first."""
    evidence = Evidence.of(calls)
    best: dict[str, tuple[float, int]] = {}
    union: dict[str, frozenset[str]] = {}
    for each in evidence.rank(question):
        path = each.passage.path
        if path is None:
            continue
        union[path] = union.get(path, frozenset()) | stems(each.passage.text) | stems(path)
        if path not in best or each.score > best[path][0]:
            best[path] = (each.score, each.passage.line or 1)
    wanted = stems(question)
    share = {path: sum(covered(w, union[path]) for w in wanted) / max(1, len(wanted)) for path in best}
    order = sorted(best, key=lambda path: (-(best[path][0] + 0.5 * share[path]), path))
    return [(path, best[path][1]) for path in order]


def _same(a: Passage, b: Passage) -> bool:
    if a.path is not None and a.path == b.path and a.line is not None and b.line is not None:
        one, two = stems(a.text), stems(b.text)
        return abs(a.line - b.line) <= 3 and len(one & two) >= 0.6 * max(1, min(len(one), len(two)))
    return a.text.strip() == b.text.strip()


def _passages(rows: list[tuple[int, str]], tool: str, path: str | None, spelled: str) -> Iterator[Passage]:
    """Yield the sentences of a text; a sentence may run over several lines, a table's row may not."""
    headings: list[tuple[int, str]] = []
    block: list[tuple[int, str]] = []
    fenced = False

    def sentences() -> Iterator[Passage]:
        text, places = "", list[tuple[int, int]]()
        for number, line in block:
            places.append((len(text), number))
            text += line.strip() + " "
        around = " ".join([path or "", PurePosixPath(path or "").stem, *(words for _, words in headings)])
        for match in re.finditer(rf"\S.*?(?:[.!?]{NO_STOP}(?=[\"'”)]*\s+[\"'“(]?[A-Z0-9`*])|$)", text.strip()):
            at_line = max((number for at, number in places if at <= match.start()), default=None)
            if words := _LISTED.sub("", match[0]).strip(" |"):
                yield Passage(words, tool, path, at_line, spelled, around)
        block.clear()

    for place, line in rows:
        fence = line.lstrip().startswith(("```", "~~~"))
        fenced = fenced != fence
        mark = None if fenced else re.match(r"^(#{1,6})\s+(.*)$", line)
        if block and "|" in line and _RULER.match(line):  # what was collected is a table's head
            head = block[-1][1].strip(" |")
            yield Passage(head, tool, path, block[-1][0], spelled, path or "", heading=True)
            headings = [*[(d, words) for d, words in headings if d < 7], (7, head)]
            block.clear()
            continue
        if mark or fence or fenced or not line.strip() or _LISTED.match(line) or line.startswith(("    ", "\t")):
            yield from sentences()
        if not line.strip():
            headings = [(depth, words) for depth, words in headings if depth < 7]
        if mark:
            headings = [(depth, words) for depth, words in headings if depth < len(mark[1])]
            yield Passage(mark[2], tool, path, place, spelled, path or "", heading=True)
            headings.append((len(mark[1]), mark[2]))
        elif line.strip() and not fence and not re.fullmatch(r"[\s|:=+`~_*-]+", line):
            block.append((place, line))
    yield from sentences()


def _json(text: str) -> Any:
    if text[:1] not in '{["':
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(part, (dict, list)) for part in value):
        for number, part in enumerate(value, 1):
            yield from _flat(part, f"{name}[{number}]")
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value))
    else:
        yield name, value

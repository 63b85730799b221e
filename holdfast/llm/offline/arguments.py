"""Fills a tool's arguments from a request and from what other tools returned; the offline model uses it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import available_timezones

from holdfast.llm.offline.evidence import similarity
from holdfast.llm.offline.text import Clause, covered, expression, names, paths_in, quoted, stem, stems, terms, wordset
from holdfast.llm.offline.tools import Parameter, ToolView

__all__ = ["Filled", "Source", "fill", "identifiers", "written_out"]

_VALUE = r"(?:[A-Za-z]{0,8}[-_]?\d[\w-]*|[A-Z]{2,}[-_][\w-]+)"
_MONEY = re.compile(
    r"[$€£]\s?(\d[\d,]*(?:\.\d+)?)|(\d[\d,]*(?:\.\d+)?)\s?(?:[$€£]|(?:dollars?|euros?|usd|eur|gbp|pounds?)\b)", re.I
)
_AMOUNTS = wordset("amount total price cost sum value balance paid fee payment")
_NO_NOUN = wordset("id ids number no key code ref reference name sku the of")
_OBJECT_WORDS = 4
_ASKED = "have left there now today available currently"  # words of a question that are not what it is about
_OBJECT = re.compile(r"^(?:a|an|the|that|to|my|our|new|in|down|up|me|us|them|about|for|:|-)\s+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Source:
    """Where arguments come from: the clause, the whole request, what tools returned, the passage to pass on."""

    clause: Clause
    request: str
    facts: list[tuple[str, Any]] = field(default_factory=list)
    finding: str = ""
    topic: str = ""


@dataclass(frozen=True, slots=True)
class Filled:
    """The calls a tool can be given, and else which required parameters nothing was found for.

    `sure`: what the call is about was named in the request: an id by its noun, an address, a sum, a quotation.
    """

    calls: list[dict[str, Any]]
    missing: list[str]
    sure: bool


def fill(tool: ToolView, source: Source) -> Filled:
    """Fill the required parameters of *tool*; several ids make several calls."""
    calls: list[dict[str, Any]] = [{}]
    missing, used, sure = [], set[str](), False
    queue = quoted(source.clause.text) or quoted(source.request)
    # Ids go first, so that a number which is an id is not taken for an amount.
    for parameter in sorted(tool.required, key=lambda each: each.kind != "id"):
        if parameter.kind == "id":
            found = identifiers(parameter, tool, source.clause.text) or identifiers(parameter, tool, source.request)
            sure = sure or bool(found)
            if not found:
                found = [str(value) for name, value in source.facts if _last(name) == parameter.name][:1]
            used |= set(found)
            values: list[Any] = [_typed(parameter, value) for value in found[:10]]
        else:
            value, certain = _value(parameter, tool, source, used, queue)
            sure = sure or certain
            values = [] if value is None else [value]
        if values:
            calls = [{**call, parameter.name: value} for call in calls for value in values][:10]
        else:
            missing.append(parameter.name)
    return Filled([] if missing else calls, missing, sure)


def written_out(text: str, tools: list[ToolView]) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls that a request spells out, as `stock(item="lamps")` or `stock(item=lamps)`."""
    found = []
    for tool in tools:
        for match in re.finditer(rf"(?<![\w.]){re.escape(tool.name)}\(((?:\"[^\"]*\"|'[^']*'|[^()\"'])*)\)", text):
            given = dict(re.findall(r"(\w+)\s*=\s*(\"[^\"]*\"|'[^']*'|[^,]+)", match[1]))
            if all(parameter.name in given for parameter in tool.required):
                found.append((tool.name, {name: _literal(name, value.strip(), tool) for name, value in given.items()}))
    return found


def _literal(name: str, value: str, tool: ToolView) -> Any:
    kind = next((each.schema.get("type") for each in tool.parameters if each.name == name), None)
    if value[:1] in ("'", '"') or kind == "string":
        return value.strip("'\"")
    try:
        return json.loads(value)
    except ValueError:
        return value


def identifiers(parameter: Parameter, tool: ToolView, text: str) -> list[str]:
    """Return what a text names as this parameter: `order 17` and `orders #17 and 18` for order_id."""
    nouns = [word for word in parameter.words if word not in _NO_NOUN]
    own = bool(nouns)
    nouns = nouns or [word for word in tool.words if len(word) > 2 and word not in ("get", "find", "status", "lookup")]
    for noun in nouns:
        pattern = (
            rf"\b{re.escape(noun)}(?:s|es)?\b[\s#:=]*(?:(?:number|numbers|no\.?|nr\.?|id|ids|is|called|with|code|key)\b[\s#:=]*)*"
            rf"[#\"'`“]?({_VALUE}[\"'`”]?(?:\s*(?:,|and|&|or)\s*#?(?=\S*\d){_VALUE})*)"
        )
        if found := re.search(pattern, text, re.IGNORECASE):
            return re.findall(_VALUE, found[1])
    loose = re.findall(rf"(?<![\w.$€£])#?({_VALUE})(?![\w%€$£]|\.\d)", text)
    about = stems(text)
    if len(set(loose)) == 1 and (not own or any(covered(stem(noun), about) for noun in nouns)):
        return loose[:1]
    return []


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _typed(parameter: Parameter, value: str) -> Any:
    if parameter.schema.get("type") == "integer" and value.lstrip("#").isdigit():
        return int(value)
    return value


def _value(parameter: Parameter, tool: ToolView, source: Source, used: set[str], queue: list[str]) -> tuple[Any, bool]:
    """Return (a value or None, whether the request names it)."""
    text, kind = source.clause.text, parameter.kind
    known = next((value for name, value in source.facts if _last(name) == parameter.name), None)
    match kind:
        case "expression":
            sum_ = expression(text) or expression(source.request)
            return sum_, sum_ is not None
        case "timezone":
            return timezone(source.request) or "UTC", True
        case "email":
            pattern = r"[\w.+-]+@[\w-]+\.[\w.-]*\w"
            if found := re.findall(pattern, text) or re.findall(pattern, source.request):
                return found[0], True
            if known is None and (person := re.search(r"\b(?:to|email|mail|tell)\s+((?:[A-Z][\w-]*\s?)+)", text)):
                return person[1].strip(), True
            return known, False
        case "url":
            links = re.findall(r"https?://[^\s\"'<>)]*[^\s\"'<>).,;!?]", source.request)
            return (links[0], True) if links else (known, False)
        case "path":
            paths = paths_in(text) or paths_in(source.request)
            return (paths[0], True) if paths else (known, False)
        case "query":
            return " ".join(terms(text)) or text, False
        case "date":
            dates = re.findall(r"\b\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2})?)?", source.request)
            return (dates[0], True) if dates else (known, False)
        case "number":
            return _number(parameter, source, used)
        case "flag":
            return not re.search(rf"\b(?:no|not|without)\s+\w*\s*{re.escape(parameter.words[0])}", text, re.I), False
        case "choice":
            return _choice(parameter, text), False
        case "list":
            return (list(queue) or names(text) or None), bool(queue)
        case "title":
            return _title(parameter, tool, source, queue)
        case "body":
            return (queue.pop(0), True) if queue else _body(parameter, source)
        case "words":
            return _words(parameter, tool, source, queue, known)
        case _:
            return None, False


def timezone(text: str) -> str | None:
    """Return the IANA time zone a text names, by its name or by its city."""
    zones = available_timezones()
    for word in re.findall(r"[A-Za-z_]+(?:/[A-Za-z_]+)+|\bUTC\b|\bGMT\b", text):
        if word in zones:
            return str(word)
    cities = {zone.rpartition("/")[2].replace("_", " ").casefold(): zone for zone in sorted(zones) if "/" in zone}
    folded = text.casefold()
    found = [zone for city, zone in cities.items() if len(city) > 3 and re.search(rf"\b{re.escape(city)}\b", folded)]
    return max(found, key=len) if found else None


def _number(parameter: Parameter, source: Source, used: set[str]) -> tuple[Any, bool]:
    whole = parameter.schema.get("type") == "integer"
    for text in (source.clause.text, source.request):
        if money := _MONEY.search(text):
            return _as_number(money[1] or money[2], whole), True
        for word in parameter.words:
            near = re.search(rf"\b{re.escape(word)}s?\b\D{{0,12}}(-?\d[\d,]*(?:\.\d+)?)", text, re.IGNORECASE)
            near = near or re.search(rf"(-?\d[\d,]*(?:\.\d+)?)\s+{re.escape(word)}s?\b", text, re.IGNORECASE)
            if near:
                return _as_number(near[1], whole), True
        free = [n for n in re.findall(r"(?<![\w#.-])\d[\d,]*(?:\.\d+)?(?![\w-])", text) if n.rstrip(",") not in used]
        if len(free) == 1 and not (set(parameter.words) & _AMOUNTS and source.facts and "." not in free[0]):
            return _as_number(free[0], whole), True
    numbers = [(name, v) for name, v in source.facts if isinstance(v, (int, float)) and not isinstance(v, bool)]
    for name, value in numbers:
        if _last(name) == parameter.name:
            return value, False
    if set(parameter.words) & _AMOUNTS:
        for name, value in numbers:
            if set(re.split(r"[^a-z]+", name.casefold())) & _AMOUNTS:
                return value, False
    return None, False


def _as_number(text: str, whole: bool) -> int | float:
    value = float(text.rstrip(",").replace(",", ""))
    return int(value) if whole or value.is_integer() else value


def _choice(parameter: Parameter, text: str) -> Any:
    options = parameter.schema.get("enum") or [parameter.schema.get("const")]
    said = stems(text)
    for option in options:
        words = stems(str(option).replace("_", " "))
        if words and words <= said:
            return option
    if "default" in parameter.schema:
        return parameter.schema["default"]
    scores = similarity(text, [str(option).replace("_", " ") for option in options])
    return options[max(range(len(options)), key=lambda at: scores[at])]


def _object(clause: Clause) -> str:
    """Return what an order is about: "file a ticket about the pump" gives "the pump"."""
    text = clause.text.rstrip(".!? ")
    if clause.verb:
        text = re.sub(rf"^\W*{re.escape(clause.verb)}\b\s*", "", text, flags=re.IGNORECASE)
    if about := re.search(
        r"\b(?:about|regarding|concerning|saying|that says|that|titled|called|named|with)\s+(.+)$", text
    ):
        return about[1].strip()
    while (shorter := _OBJECT.sub("", text)) != text:
        text = shorter
    return text.strip()


def _vague(text: str) -> bool:
    return not terms(
        re.sub(r"\b(?:it|this|that|result|answer|finding|summary|details)\b", "", text, flags=re.IGNORECASE)
    )


def _title(parameter: Parameter, tool: ToolView, source: Source, queue: list[str]) -> tuple[Any, bool]:
    if queue:
        return queue.pop(0), True
    if parameter.words[-1] == "name" and (found := names(source.clause.text)):
        return " ".join(found), True
    text = _object(source.clause)
    if _vague(text) or stems(text) <= stems(f"{' '.join(tool.words)} {source.clause.verb}"):
        text = source.topic or source.finding or source.request
    return text[:120].strip(), False


def _body(parameter: Parameter, source: Source) -> tuple[Any, bool]:
    text = _object(source.clause)
    if parameter.words[-1] in ("reason", "text", "note") and not _vague(text) and not source.finding:
        return text, False
    if source.finding:
        return source.finding if _vague(text) else f"{text}: {source.finding}", False
    return (source.request if _vague(text) else text), False


def _words(parameter: Parameter, tool: ToolView, source: Source, queue: list[str], known: Any) -> tuple[Any, bool]:
    text = source.clause.text
    if queue:
        return queue.pop(0), True
    for word in parameter.words:
        if found := re.search(
            rf"\b{re.escape(word)}\s+(?:is\s+|named\s+|called\s+)?([A-Z][\w-]*(?:\s+[A-Z][\w-]*)*)", text
        ):
            return found[1], True
    if found := re.search(r"\b(?:in|for|of|from|to|at|about|on)\s+((?:[A-Z][\w'-]*)(?:\s+[A-Z][\w'-]*)*)", text):
        return found[1], True
    if known is not None:
        return known, False
    if proper := names(text):
        return " ".join(proper), True
    if tool.looks:  # "How many lamps are in stock?" asks `stock(item)` about what its description does not say
        about = stems(f"{tool.meaning} {' '.join(parameter.words)} many much {_ASKED}")
        left = [word for word in terms(text) if not covered(stem(word), about)]
        return (" ".join(left), False) if 0 < len(left) <= _OBJECT_WORDS else (None, False)
    return None, False

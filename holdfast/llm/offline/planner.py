"""Decides what the offline model does next: which look-ups, which acts. Only `offline/extractive` uses it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from holdfast.llm.offline.arguments import Filled, Source, fill, timezone, written_out
from holdfast.llm.offline.evidence import Evidence, hits_of, similarity
from holdfast.llm.offline.text import Clause, clauses, covered, expression, names, paths_in, stem, stems, terms
from holdfast.llm.offline.tools import ToolView
from holdfast.llm.offline.turn import Turn

__all__ = ["Act", "Planner", "Wanted"]

Planned = tuple[str, dict[str, Any]]

_READS = 3  # files read for one question
_FAR = 120  # a hit further down than this is read from a little before it
_TIME = re.compile(
    r"\b(?:what(?:'s| is)? (?:the )?(?:\w+ )?(?:time|date|day)|current (?:time|date)|time is it|o'clock|today'?s date"
    r"|what day|time in)\b",
    re.IGNORECASE,
)
_LIST = re.compile(
    r"\b(?:list|which|what|show|all|how many)\b(?:\s+\w+){0,4}?\s+(?:files|documents)\b",
    re.IGNORECASE,
)
_PERSONAL = re.compile(r"\b(?:i|my|mine|remember|told|last time)\b", re.IGNORECASE)


_POINTS_BACK = re.compile(r"\b(?:it|its|they|them|their|this|that|these|those|he|she|his|her)\b", re.IGNORECASE)


def _of_memory(tool: ToolView) -> bool:
    return bool({"recall", "memory", "memories"} & set(tool.words))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Something to find out. `search`: look for it in texts, if no tool knows it outright."""

    clause: Clause
    search: bool = True
    before: str = ""

    @property
    def question(self) -> str:
        """Return what is asked, without the order to say it; with the question before if this one points back to it."""
        text = self.clause.text
        if self.clause.verb:
            text = re.sub(rf"^\W*{re.escape(self.clause.verb)}\b(?=\W+\w)", "", text, flags=re.IGNORECASE).strip()
        return f"{self.before} {text}" if self.before and _POINTS_BACK.search(text) else text


@dataclass(frozen=True, slots=True)
class Act:
    """Something to do, and the tool that does it; None if there is none."""

    clause: Clause
    tool: ToolView | None


class Planner:
    """Reads a request against the tools there are. The same conversation always gives the same plan."""

    def __init__(self, turn: Turn, tools: list[ToolView]) -> None:
        self.turn = turn
        self.looking = [tool for tool in tools if tool.looks]
        self.acting = [tool for tool in tools if not tool.looks]
        self.acts: list[Act] = []
        self.wanted: list[Wanted] = []
        self.forms = [tool.form for tool in tools]
        self._readers = [tool for tool in self.looking if tool.reads]
        self.spelled = written_out(turn.request, tools)
        if not self.spelled:
            self._read_request()

    def _read_request(self) -> None:
        verbs = frozenset(tool.words[0] for tool in self.acting if tool.words)
        told: list[Clause] = []
        for clause in clauses(self.turn.request, verbs):
            if clause.negated:
                continue
            acts = clause.kind in ("act", "wish") or clause.verb in verbs
            if acts and (tool := self._tool_for(clause)):
                self.acts.append(Act(clause, tool))
            elif clause.kind == "act":
                self.acts.append(Act(clause, None))
                self.wanted.append(Wanted(clause, search=False))
            elif clause.kind == "tell":
                told.append(clause)
            else:
                self.wanted.append(Wanted(clause))
        if not self.wanted and not self.acts:
            self.wanted = [Wanted(clause) for clause in told]
        earlier = ["", *(wanted.question for wanted in self.wanted)]
        self.wanted = [replace(wanted, before=before) for wanted, before in zip(self.wanted, earlier, strict=False)]

    def _tool_for(self, clause: Clause) -> ToolView | None:
        """Return the acting tool that an order means, by name, description and meaning."""
        if not self.acting:
            return None
        said, verb = stems(clause.text), stem(clause.verb) if clause.verb else ""
        alike = similarity(clause.text, [tool.meaning for tool in self.acting])
        best: tuple[float, ToolView] | None = None
        for tool, meaning in zip(self.acting, alike, strict=True):
            name = {stem(word) for word in tool.words}
            about = stems(tool.meaning)
            shared = (name & said) - {verb}
            score = 1.0 * (verb in name) + 0.5 * (verb == stem(tool.verb)) + 0.4 * len(shared)
            score += 0.5 * sum(covered(word, about) for word in said) / max(1, len(said)) + max(0.0, meaning)
            if clause.kind == "wish" and not name & said:
                continue
            if score >= 0.9 and (best is None or score > best[0]):
                best = (score, tool)
        return best[1] if best else None

    # ------------------------------------------------------------------------------------------------- what is known

    @cached_property
    def evidence(self) -> Evidence:
        """Return what look-ups, memory and earlier messages say."""
        evidence = Evidence.of(self.turn.results({tool.name for tool in self.looking}))
        evidence.add_lines(self.turn.remembered, "memory")
        evidence.add_lines(self.turn.earlier, "said earlier in this thread")
        return evidence

    def outright(self, wanted: Wanted) -> list[Planned]:
        """Return the calls of tools that know the thing itself: a record by its id, a sum, the time, a named file."""
        text = wanted.clause.text
        calls: list[Planned] = []
        for tool in self.looking:
            if tool.sole("expression"):
                if sum_ := expression(text):
                    calls.append((tool.name, {tool.required[0].name: sum_}))
            elif tool.tells_time:
                if _TIME.search(text):
                    zone = next((each for each in tool.parameters if each.kind == "timezone"), None)
                    named = timezone(text) or ("UTC" if zone and zone.required else None)
                    calls.append((tool.name, {zone.name: named} if zone and named else {}))
            elif tool.lists:
                if _LIST.search(text):
                    calls.append((tool.name, {}))
            elif tool.reads:
                calls += [(tool.name, {tool.required[0].name: path}) for path in paths_in(text)[:_READS]]
            elif not tool.searches:
                calls += [(tool.name, arguments) for arguments in self._record(tool, wanted.clause)]
        return calls

    def _record(self, tool: ToolView, clause: Clause) -> list[dict[str, Any]]:
        filled = fill(tool, Source(clause, self.turn.request, []))
        named = {stem(word) for word in tool.words}
        share = sum(covered(word, stems(clause.text)) for word in named) / max(1, len(named))
        relevance = 0.6 * max(0.0, similarity(clause.text, [tool.meaning])[0]) + 0.4 * share
        by_id = filled.sure and any(parameter.kind == "id" for parameter in tool.required)
        if relevance >= (0.1 if by_id else 0.3 if filled.sure else 0.45):
            return filled.calls
        return []

    # ------------------------------------------------------------------------------------------------ what to do next

    def next_calls(self) -> list[Planned]:
        """Return the calls to make now; none if it is time to answer."""
        if self.spelled:
            made = [(call.name, call.arguments) for call in self.turn.calls]
            return [call for call in self.spelled if call not in made]
        if not any(call.name == tool.name for call in self.turn.calls for tool in self.acting):
            calls = [call for wanted in self.wanted for call in self._look(wanted)]
            calls += [call for act in self.acts for call in self._before(act)]
            if calls:
                return [call for at, call in enumerate(calls) if call not in calls[:at]]
        for act, calls in self.due():
            if act.tool is not None and calls:
                return calls
        return []

    def _look(self, wanted: Wanted) -> list[Planned]:
        outright = self.outright(wanted)
        if calls := [call for call in outright if self.turn.may(*call)]:
            return calls
        if any(self.turn.made(*call) for call in outright) or not wanted.search or not terms(wanted.question):
            return []
        question = wanted.question
        known = Evidence()
        known.add_lines(self.turn.remembered, "memory")
        known.add_lines(self.turn.earlier, "said earlier in this thread")
        if _PERSONAL.search(question) and known.answer(question):
            return []
        searchers = [tool for tool in self.looking if tool.searches]
        personal = bool(_PERSONAL.search(question))
        searchers.sort(key=lambda tool: ("recall" in tool.words or "memory" in tool.words) != personal)
        for tool in searchers:
            if calls := self._search(tool, question):
                return calls
            if self.evidence.answer(question):
                return []
        return self._browse(question)

    def _search(self, tool: ToolView, question: str) -> list[Planned]:
        for query in self._queries(tool, question):
            arguments = {tool.required[0].name: query}
            if self.turn.may(tool.name, arguments):
                return [(tool.name, arguments)]
            found = self.turn.made(tool.name, arguments)
            if found is None or found.empty:
                continue
            for path, line in hits_of([found], question)[:_READS]:
                read = self._read(path, line)
                if read is None:
                    break
                if self.turn.may(*read):
                    return [read]
                if self.evidence.answer(question):
                    return []
        return []

    def _queries(self, tool: ToolView, question: str) -> list[str]:
        """Return what to search for: all that carries meaning, then only names or the longest words."""
        words = terms(question)
        plain = " ".join(words)
        proper = " ".join(names(question)[:4]) or " ".join(sorted(words, key=lambda word: (-len(word), word))[:2])
        about = f"{tool.description} {tool.required[0].schema.get('description', '')}".casefold()
        if "regex" in about or "regular expression" in about:
            return ["|".join(map(re.escape, words))]
        if _of_memory(tool):
            return [plain]  # it goes by meaning: fewer words would find no more
        return [plain, proper] if proper.casefold() != plain.casefold() else [plain]

    def _read(self, path: str, line: int) -> Planned | None:
        if not self._readers:
            return None
        tool = self._readers[0]
        arguments: dict[str, Any] = {tool.required[0].name: path}
        start = next(
            (each for each in tool.parameters if each.name in ("start", "offset", "first", "start_line")), None
        )
        if line > _FAR and start is not None:
            arguments[start.name] = line - _FAR // 3
        return tool.name, arguments

    def _browse(self, question: str) -> list[Planned]:
        """Look through the names of files when their text held nothing."""
        lister = next((tool for tool in self.looking if tool.lists), None)
        if lister is None or not self._readers or self.evidence.passages:
            return []
        if self.turn.may(lister.name, {}):
            return [(lister.name, {})]
        listed = self.turn.made(lister.name, {})
        wanted = stems(question)
        for path in (listed.content.splitlines() if listed else [])[:1000]:
            if any(covered(word, stems(path)) for word in wanted):
                read = self._read(path.strip(), 1)
                return [read] if read and self.turn.may(*read) else []
        return []

    # ------------------------------------------------------------------------------------------------------ what to do

    def _before(self, act: Act) -> list[Planned]:
        """Return the look-ups of what an act is about: the order, before it is refunded."""
        if act.tool is None:
            return []
        shared = {parameter.name for parameter in act.tool.required if parameter.kind == "id"}
        calls: list[Planned] = []
        for tool in self.looking:
            if shared & {parameter.name for parameter in tool.required if parameter.kind == "id"}:
                filled = fill(tool, Source(act.clause, self.turn.request))
                calls += [(tool.name, arguments) for arguments in filled.calls if filled.sure]
        return [call for call in calls if self.turn.may(*call)]

    def filled(self, act: Act) -> Filled:
        """Return the arguments of an act, from the request and from what was looked up."""
        assert act.tool is not None
        quotes = [passage for wanted in self.wanted for passage in self.evidence.answer(wanted.question, 2)]
        finding = "; ".join(f"{passage.shown} ({passage.source})" for passage in quotes)
        topic = next((wanted.question.rstrip("?.! ") for wanted in self.wanted), "")
        return fill(act.tool, Source(act.clause, self.turn.request, self.evidence.facts, finding, topic))

    def holds(self, clause: Clause) -> bool:
        """Tell whether the condition of an order was met, as far as what is known says so."""
        if not clause.condition:
            return True
        told = Evidence(list(self.evidence.passages))
        told.add_lines([c.text for c in clauses(self.turn.request) if c.kind == "tell"], "the request")
        wanted = {word for word in stems(clause.condition) if not word.isdigit()}
        return any(
            sum(covered(word, stems(f"{p.text} {p.around}")) for word in wanted) >= 0.6 * len(wanted)
            for p in told.passages
            if wanted
        )

    def due(self) -> list[tuple[Act, list[Planned]]]:
        """Return each act with the calls it still needs: each once, a failed one once more."""
        plan: list[tuple[Act, list[Planned]]] = []
        seen: dict[str, int] = {}
        for act in self.acts:
            calls: list[Planned] = []
            if act.tool is not None and self.holds(act.clause):
                groups = self.turn.acted(act.tool.name)
                for arguments in self.filled(act).calls:
                    at = seen.get(act.tool.name, 0)
                    seen[act.tool.name] = at + 1
                    if at >= len(groups):
                        calls.append((act.tool.name, arguments))
                    elif self.turn.again(groups[at]):
                        calls.append((act.tool.name, groups[at][-1].arguments))
            plan.append((act, calls))
        return plan

"""`offline/extractive`: stands in where no model has a key. Not a language model, and it says so. The port calls it.

It picks tools by meaning, fills their arguments from the schema, and answers by quoting what the tools returned, with
the sources. What it cannot find it does not say. The same conversation always gets the same reply.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

from holdfast.advice import for_person
from holdfast.llm.models import OFFLINE_MODEL, ModelReply, ModelRequest, OnDelta, Usage, assistant_message
from holdfast.llm.offline.evidence import Call, Passage
from holdfast.llm.offline.planner import Planner, Wanted
from holdfast.llm.offline.text import terms
from holdfast.llm.offline.tools import view_tools
from holdfast.llm.offline.turn import Turn, read_turn
from holdfast.llm.streams import named_calls

__all__ = ["NOTICE", "complete", "context_window", "count_tokens", "warm"]

NOTICE = (
    f"— {OFFLINE_MODEL}: a stand-in without a language model; it only quotes what tools returned. "
    "For a real model set its key, such as OPENAI_API_KEY, or the agent's `model` and `api_base`."
)

_WINDOW = 128_000
_SHOWN = 700  # characters of a tool's result that are shown whole
_EDITED = re.compile(r"^\[a person changed the arguments of this call: (.*)\]\n")
_FORMS = 8  # tools that a refusal names
_WORDS = 4  # words a streamed piece has


async def complete(request: ModelRequest, on_delta: OnDelta | None) -> ModelReply:
    """Answer a request; see `holdfast.llm.port.complete`. Costs nothing."""
    started = time.monotonic()
    text, planned = await asyncio.to_thread(_decide, request)
    calls = named_calls([("", name, json.dumps(args, ensure_ascii=False)) for name, args in planned], request.messages)
    if text and on_delta is not None:
        words = text.split(" ")
        for at in range(0, len(words), _WORDS):
            on_delta(" ".join(words[at : at + _WORDS]) + (" " if at + _WORDS < len(words) else ""))
            await asyncio.sleep(0)
    message = assistant_message(text, calls)
    return ModelReply(
        message=message,
        text=text,
        tool_calls=calls,
        usage=Usage(
            input_tokens=count_tokens(request.model, request.messages, request.tools),
            output_tokens=count_tokens(request.model, [message], []),
        ),
        cost_usd=0.0,
        finish_reason="tool_calls" if calls else "stop",
        model=OFFLINE_MODEL,
        latency_s=time.monotonic() - started,
    )


def count_tokens(model: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> int:
    """Estimate tokens: four characters each."""
    return sum(len(json.dumps(part, ensure_ascii=False)) for part in (*messages, *tools)) // 4


def context_window(model: str) -> int:
    """Return the tokens it reads at most; any bound would do, this one is a usual model's."""
    return _WINDOW


def warm() -> None:
    """Load the embeddings. Blocks for about a second."""
    from holdfast.memory.embeddings import embed_texts

    embed_texts(["warm"])


def _decide(request: ModelRequest) -> tuple[str | None, list[tuple[str, dict[str, Any]]]]:
    turn = read_turn(request.messages)
    planner = Planner(turn, view_tools(request.tools))
    if calls := planner.next_calls():
        return None, calls
    return _answer(planner, turn), []


def _answer(planner: Planner, turn: Turn) -> str:
    if planner.spelled:
        made = [call for call in turn.calls if (call.name, call.arguments) in planner.spelled]
        return "\n\n".join([*(f"{call.spelled}: {for_person(call.content.strip())}" for call in made), NOTICE])
    parts = [part for wanted in planner.wanted if (part := _found(planner, turn, wanted))]
    parts += _done(planner, turn)
    parts += _failures(planner, turn)
    if not parts:
        parts = ["I can look things up with the tools I have and quote what they return. What shall I look for?"]
    return "\n\n".join([*parts, NOTICE])


def _found(planner: Planner, turn: Turn, wanted: Wanted) -> str:
    """Return what was found out about one question, quoted; or that nothing was."""
    question = wanted.question
    made = [call for planned in planner.outright(wanted) if (call := turn.made(*planned))]
    if made:
        return "\n".join(_shown(planner, call, question) for call in made)
    if not wanted.search or not terms(question):
        return ""
    if quotes := planner.evidence.answer(question):
        return "\n".join(_quote(passage) for passage in quotes)
    looking = {tool.name for tool in planner.looking}
    tried = list(dict.fromkeys(call.spelled for call in turn.calls if call.name in looking))
    text = f"I found nothing that answers “{wanted.clause.text}”"
    text += f". I tried {', '.join(tried[:6])}." if tried else ": I could not tell which tool looks it up."
    if planner.forms and not tried:
        text += f" Write the call out and I will make it: {', '.join(planner.forms[:_FORMS])}."
    ranked = planner.evidence.rank(question)
    if ranked and ranked[0].score >= 0.35 and not ranked[0].passage.heading:
        text += f" The nearest passage, which may be about something else: {_quote(ranked[0].passage)}"
    return text


def _shown(planner: Planner, call: Call, question: str) -> str:
    """Return what a tool said outright: whole if short, else the passages that matter."""
    content = call.content.strip()
    if call.empty:
        return f"{call.spelled} found nothing."
    passages = [passage for passage in planner.evidence.passages if passage.spelled == call.spelled and passage.path]
    if passages:
        best = [p for p in planner.evidence.answer(question) if p.spelled == call.spelled]
        return "\n".join(_quote(p) for p in best or [p for p in passages if not p.heading][:3])
    flat = [passage.text for passage in planner.evidence.passages if passage.spelled == call.spelled]
    if len(flat) == 1:
        content = flat[0]
    if len(content) > _SHOWN:
        content = content[:_SHOWN].rsplit("\n" if "\n" in content[:_SHOWN] else " ", 1)[0] + " …"
    return f"{call.spelled}:{chr(10) if chr(10) in content else ' '}{content}"


def _quote(passage: Passage) -> str:
    return f"“{passage.shown}” ({passage.source})"


def _done(planner: Planner, turn: Turn) -> list[str]:
    """Return what became of each thing to do."""
    lines = []
    for tool in planner.acting:
        for group in turn.acted(tool.name):
            call = group[-1]
            said = _EDITED.sub(r"with arguments changed by a person, \1: ", for_person(call.content.strip()))
            said = said if len(said) <= _SHOWN else said[:_SHOWN] + " …"
            tried = f" (tried {len(group)} times)" if len(group) > 1 else ""
            lines.append(f"{'Not done' if call.failed else 'Done'}{tried}: {call.spelled}: {said}")
    for act in planner.acts:
        if act.tool is None:
            lines.append(f"I did not do “{act.clause.text}”: none of my tools does that.")
        elif not planner.holds(act.clause):
            lines.append(f"I did not call {act.tool.name}: nothing I was told says that {act.clause.condition}.")
        elif (filled := planner.filled(act)).missing and not turn.acted(act.tool.name):
            lines.append(
                f"I did not call {act.tool.name}: I could not tell {' and '.join(filled.missing)}. Please say."
            )
    return lines


def _failures(planner: Planner, turn: Turn) -> list[str]:
    """Name each look-up that failed and was not made good."""
    lines: dict[str, str] = {}
    for tool in planner.looking:
        failed = [call for call in turn.calls if call.name == tool.name and call.failed]
        if failed and not turn.results({tool.name}):
            lines[tool.name] = f"{tool.name} failed: {failed[-1].content.strip().removeprefix('error: ')[:_SHOWN]}"
    return list(lines.values())

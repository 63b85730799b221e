"""Builds the request of a model call from the thread, the same bytes each time: also when it is looked at later."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from holdfast import llm
from holdfast.activities.hooks import undo_change
from holdfast.contracts import AgentDefinition, MemoryHit
from holdfast.ids import canonical_json
from holdfast.llm import ModelRequest
from holdfast.memory import outbox, requests, runs
from holdfast.memory.database import Connection
from holdfast.memory.threads import INTERRUPTED, Entry
from holdfast.secrets import reveal
from holdfast.settings import Settings
from holdfast.typed import response_format

__all__ = [
    "asks_natively",
    "build_request",
    "digest_of",
    "model_of",
    "rebuild_request",
    "request_hash",
    "revealed",
    "tokens_besides",
    "window_limit",
]

_FINAL = (
    "Your final answer, when you call no more tools, must be one JSON value that fits the JSON schema below. Write "
    "this JSON and nothing else: no words around it, no code fence.\n"
    "JSON schema of the final answer:"
)
_LARGE = 16_000  # tokens of a request that is hashed in a thread
_REPLY_SHARE = 8  # an eighth of the window is left for the reply, unless max_tokens says more


def model_of(definition: AgentDefinition, settings: Settings) -> str:
    """Return the model that is called for this agent here, the offline stand-in included."""
    return llm.model_for(definition, settings)


def window_limit(definition: AgentDefinition, settings: Settings) -> int:
    """Return how many tokens of instructions, tools and conversation may be sent."""
    window = definition.window or llm.context_window(model_of(definition, settings))
    return window - min(max(definition.max_tokens or 0, window // _REPLY_SHARE), window // 2)


def tokens_besides(definition: AgentDefinition) -> int:
    """Estimate the tokens sent beside the conversation: instructions and tool schemas, four bytes each."""
    tools = sum(len(tool.description) + len(canonical_json(tool.parameters)) + 40 for tool in definition.tools)
    answer = len(canonical_json(definition.output.shape)) + len(_FINAL) if definition.output is not None else 0
    return (len(definition.instructions.encode()) + tools + answer) // 4 + 16


def asks_natively(definition: AgentDefinition, model: str) -> bool:
    """Whether the model is held to the answer's schema by the provider; else it is told what to write."""
    if definition.output is None or definition.output.native is False:
        return False
    return definition.output.native or llm.supports_schema(model, tools=bool(definition.tools))


def build_request(
    definition: AgentDefinition,
    settings: Settings,
    entries: list[Entry],
    hits: list[MemoryHit],
    *,
    model: str | None = None,
    native: bool | None = None,
) -> ModelRequest:
    """Return the request over these messages. Open slots, which only an interrupted run leaves, read as such.

    *model* is the one that was called then, and *native* how it was asked, when an old request is rebuilt.
    """
    model = model or model_of(definition, settings)
    if native is None:
        native = asks_natively(definition, model)
    system = definition.instructions
    if definition.output is not None and not native:
        system = f"{system}\n\n{_FINAL}\n{canonical_json(definition.output.shape)}".strip()
    if hits:
        remembered = "\n".join(f"- {hit.text}" for hit in hits)
        system = f"{system}\n\nWhat you remember that may matter here:\n{remembered}".strip()
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    messages += [
        entry.body or {"role": "tool", "tool_call_id": entry.call_id, "content": INTERRUPTED} for entry in entries
    ]
    return ModelRequest(
        model=model,
        messages=messages,
        tools=[
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
            }
            for tool in definition.tools
        ],
        temperature=definition.temperature,
        seed=definition.seed,
        max_tokens=definition.max_tokens,
        api_base=definition.api_base or settings.api_base,
        timeout=settings.model_timeout,
        params=definition.params,
        price=llm.price_of(definition, settings),
        response_format=response_format(definition.output) if definition.output is not None and native else None,
    )


async def revealed(request: ModelRequest) -> ModelRequest:
    """Return the request with the values of secrets where its address and parameters name them: for the call alone."""
    return replace(request, api_base=await reveal(request.api_base), params=await reveal(request.params))


async def rebuild_request(
    conn: Connection, settings: Settings, run_id: str, step_no: int
) -> tuple[ModelRequest, bool] | None:
    """Return the request of a recorded model call, and whether its hash is the one that was sent then.

    None when there is no such model call on record.
    """
    recorded = await requests.get(conn, run_id, step_no)
    run = await runs.by_id(conn, run_id)
    if recorded is None or run is None:
        return None
    definition = await runs.definition(conn, recorded.definition)
    if definition is None:
        return None
    entries = await requests.read_ranges(conn, run["thread_id"], recorded.ranges)
    hits = await outbox.get_recall(conn, run_id, recorded.recall_step) if recorded.recall_step is not None else []
    request = build_request(definition, settings, entries, hits, **_asked(recorded.params))
    if recorded.params.get("changed"):  # by plugins, before it was sent
        undone = await undo_change(conn, run["tenant"], run["thread_id"], request, recorded.params["changed"])
        if undone is None:
            return request, False
        request = undone
    return request, request_hash(request) == recorded.hash


def _asked(params: dict[str, Any]) -> dict[str, Any]:
    return {"model": params["model"], "native": params.get("native", False)}


async def digest_of(request: ModelRequest, size: int) -> str:
    """Return `request_hash`; of a request of very many tokens (*size*) in a thread, so that leases are renewed."""
    return await asyncio.to_thread(request_hash, request) if size > _LARGE else request_hash(request)


def request_hash(request: ModelRequest) -> str:
    """Return the hash of what is sent: model, messages, tools and parameters, as one canonical JSON text."""
    sent: dict[str, Any] = {
        "model": request.model,
        "messages": request.messages,
        "tools": request.tools,
        "temperature": request.temperature,
        "seed": request.seed,
        "max_tokens": request.max_tokens,
        "params": request.params,
    }
    if request.response_format is not None:
        sent["response_format"] = request.response_format
    digest = hashlib.sha256()
    for piece in _pieces(sent):
        digest.update(piece.encode())
    return digest.hexdigest()


def _pieces(sent: dict[str, Any]) -> Iterator[str]:
    """Yield the canonical JSON of *sent* message by message: written at once, megabytes would stop every thread."""
    lead = "{"
    for key, value in sorted(sent.items()):
        yield f"{lead}{canonical_json(key)}:"
        lead = ","
        if isinstance(value, list):
            for number, each in enumerate(value):
                yield f"{',' if number else '['}{canonical_json(each)}"
            yield "]" if value else "[]"
        else:
            yield canonical_json(value)
    yield "}"

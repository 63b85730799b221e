"""Reads the steps of a run with all that went in and came out. `RunReader` is made of this; nobody else calls it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from holdfast.advice import edited_note, for_person
from holdfast.contracts import Event
from holdfast.memory import decisions, events, family, ledger, requests, runs, threads
from holdfast.memory.database import Connection
from holdfast.memory.threads import INTERRUPTED
from holdfast.secrets import has_secret
from holdfast.views import ApprovalView, SentRequest, StepDetail, StepState, StepView, WaitingCall

if TYPE_CHECKING:
    from holdfast.settings import Settings

__all__ = ["all_events", "read_approvals", "read_request", "read_steps", "read_waiting"]

_PAGE = 500
_MODEL = "model"
_REJECTED = "rejected: a person did not allow this call. Reason: "
_SECRET = re.compile(r"key|token|secret|passw|credential|authorization", re.IGNORECASE)
_BY_ROW: dict[str, StepState] = {
    "done": "done",
    "failed": "failed",
    "in_doubt": "in_doubt",
    "abandoned": "abandoned",
    "in_flight": "running",
    "retry_ok": "retrying",
}


async def all_events(conn: Connection, run_id: str) -> list[Event]:
    """Return all events of a run so far."""
    found: list[Event] = []
    while page := await events.read(conn, run_id, found[-1].seq if found else 0, _PAGE):
        found.extend(page)
    return found


# ------------------------------------------------------------------------------------------------------------- steps


@dataclass(slots=True)
class _Told:
    """What a run's events say of its steps, by step."""

    replies: dict[int, dict[str, Any]] = field(default_factory=dict)
    calls: dict[int, tuple[int, int, dict[str, Any]]] = field(default_factory=dict)  # asked by, slot, what was asked
    done: dict[int, dict[str, Any]] = field(default_factory=dict)
    invalid: dict[int, str] = field(default_factory=dict)
    children: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, recorded: list[Event]) -> _Told:
        told = cls()
        for event in recorded:
            data = event.data
            if event.kind == "replied":
                step, seq = int(data["step"]), int(data["seq"])
                told.replies[step] = data
                for number, call in enumerate(data.get("calls") or []):  # slots follow the reply, in its order
                    told.calls[int(call["step"])] = (step, seq + 1 + number, call)
            elif event.kind == "tool_done":
                told.done[int(data["step"])] = data
            elif event.kind == "invalid":
                told.invalid[int(data["step"])] = str(data.get("why") or "")
            elif event.kind == "child_started":
                told.children[int(data["step"])] = str(data["run_id"])
        return told

    def places(self) -> list[int]:
        """Return the places in the thread of all replies and slots."""
        return [int(data["seq"]) for data in self.replies.values()] + [slot for _, slot, _ in self.calls.values()]


async def read_steps(
    conn: Connection, tenant: str, run_id: str, *, whole: bool, only: int | None = None
) -> list[StepDetail]:
    """Return the steps of a run in order, those that the model asked for and nobody has begun among them.

    With *whole*, long results are read in full, else as the model was given them. *only* leaves out other steps.
    """
    run = await runs.by_id(conn, run_id)
    if run is None:
        return []
    told = _Told.of(await all_events(conn, run_id))
    rows = {row["step_no"]: StepView.of(dict(row)) for row in await ledger.of_run(conn, run_id)}
    asked = {row["step_no"]: row for row in await decisions.of_run(conn, run_id)}
    places = await threads.at(conn, run["thread_id"], told.places())
    wanted = [step for step in sorted({*rows, *told.replies, *told.calls}) if only in (None, step)]
    blobs: dict[str, bytes] = {}
    if whole:
        slots = [places.get(told.calls[step][1]) for step in wanted if step in told.calls]
        blobs = await threads.get_blobs(conn, tenant, [row["blob"] for row in slots if row is not None and row["blob"]])
    found = []
    for step in wanted:
        if step in told.calls:
            found.append(_call(run, step, told, rows.get(step), asked.get(step), places, blobs))
        elif step in told.replies:
            found.append(_reply(run_id, step, told, rows.get(step), places))
        else:
            row = rows[step]
            kind = "model" if row.tool == _MODEL else "other"
            state = _BY_ROW.get(row.state, "running")
            found.append(
                StepDetail(
                    run_id=run_id, step_no=step, kind=kind, tool=row.tool, state=state, error=row.error, ledger=row
                )
            )
    return found


def _reply(run_id: str, step: int, told: _Told, row: StepView | None, places: dict[int, Any]) -> StepDetail:
    data = told.replies[step]
    stored = places.get(int(data["seq"]))
    return StepDetail(
        run_id=run_id,
        step_no=step,
        kind="model",
        tool=_MODEL,
        state="failed" if step in told.invalid else "done",
        error=told.invalid.get(step),
        reply=_body(stored),
        model=data.get("model"),
        tokens_in=data.get("tokens_in"),
        tokens_out=data.get("tokens_out"),
        cost_usd=data.get("cost_usd"),
        unpriced=data.get("unpriced", 0),
        seconds=data.get("seconds"),
        ledger=row,
    )


def _call(
    run: Any,
    step: int,
    told: _Told,
    row: StepView | None,
    approval: Any,
    places: dict[int, Any],
    blobs: dict[str, bytes],
) -> StepDetail:
    by, place, asked = told.calls[step]
    done, slot = told.done.get(step, {}), places.get(place)
    body = _body(slot)
    content = str(body.get("content") or "") if body is not None else None
    ended = run["ended_at"] is not None
    edited = json.loads(approval["args"]) if approval is not None and approval["args"] is not None else None
    text = _asked_text(places.get(int(told.replies[by]["seq"])), asked)
    state = _state(row, approval, asked, done, content, ended=ended, child=step in told.children)
    result, error = _outcome(state, row, content, edited, approval, blobs.get(slot["blob"] or "") if slot else None)
    args = _parsed(text)
    return StepDetail(
        run_id=str(run["run_id"]),
        step_no=step,
        kind="tool",
        tool=str(asked["tool"]),
        state=state,
        asked_by=by,
        call_id=str(asked["call_id"]),
        child=told.children.get(step),
        args=args,
        edited_args=_ordered(edited, args),
        result=result,
        error=error,
        read_as=content if content is not None and content != result and content != error else None,
        seconds=done.get("seconds"),
        ledger=row,
    )


def _body(row: Any) -> dict[str, Any] | None:
    if row is None or row["body"] is None:
        return None
    body: dict[str, Any] = json.loads(row["body"])
    return body


def _asked_text(reply: Any, asked: dict[str, Any]) -> str:
    """Return the arguments as the model wrote them."""
    for call in (_body(reply) or {}).get("tool_calls") or []:
        if call["id"] == asked["call_id"]:
            return str(call["function"]["arguments"])
    return str(asked.get("args") or "")


def _parsed(text: str) -> dict[str, Any] | str:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return text
    return value if isinstance(value, dict) else text


def _ordered(edited: dict[str, Any] | None, args: Any) -> dict[str, Any] | None:
    """Return edited arguments in the order in which the model gave them, what is new last."""
    if edited is None or not isinstance(args, dict):
        return edited
    names = [name for name in args if name in edited]
    return {name: edited[name] for name in [*names, *(name for name in edited if name not in args)]}


def _state(
    row: StepView | None,
    approval: Any,
    asked: dict[str, Any],
    done: dict[str, Any],
    content: str | None,
    *,
    ended: bool,
    child: bool,
) -> StepState:
    if asked.get("error"):
        return "not_made"
    decided = approval["state"] if approval is not None else None
    if row is not None:
        if row.state == "failed" and row.result is None:  # proved not sent, to be tried again
            return "interrupted" if ended else "retrying"
        if row.state == "in_flight" and ended:
            return "interrupted"
        return "failed" if done.get("status") == "error" else _BY_ROW.get(row.state, "running")
    if decided == "rejected":
        return "rejected"
    if decided == "pending":
        return "to_approve"
    if content is not None:
        return "failed" if done else "interrupted" if child else "not_made"
    if child:
        return "asking"
    return "not_made" if ended else "not_begun"


def _outcome(
    state: StepState, row: StepView | None, content: str | None, edited: Any, approval: Any, blob: bytes | None
) -> tuple[str | None, str | None]:
    """Return what a call gave, and its error, as a person reads them."""
    if state == "in_doubt":
        return None, row.error if row is not None else None
    if state == "retrying":
        return None, row.error if row is not None else None
    if state == "running" and row is not None and row.error:  # its body runs on after its time
        return None, row.error
    text = content
    if text is not None and edited is not None and approval is not None:
        text = text.removeprefix(edited_note(approval["args"]))
    if blob is not None:
        text = blob.decode("utf-8", "replace")
    if (
        text == INTERRUPTED and state == "done"
    ):  # it ended after its run: its row is settled, its slot was filled before
        return str((row.result or {}).get("preview") or "") if row is not None else None, None
    if text is None or state == "done":
        return text, None
    if state == "rejected":
        return None, text.removeprefix(_REJECTED)
    if text == INTERRUPTED:
        return None, f"the run ended before this call {'was made' if state == 'not_made' else 'did'}"
    return None, for_person(text)


# --------------------------------------------------------------------------------------------------------- approvals


async def read_approvals(conn: Connection, run_id: str) -> list[ApprovalView]:
    """Return the calls that a person was asked about, with whole arguments: who decides must see them all."""
    rows = [dict(row) for row in await decisions.of_run(conn, run_id)]
    run = await runs.by_id(conn, run_id)
    if not rows or run is None:
        return []
    words = {row["decision_id"]: row for row in await decisions.audit_of_run(conn, run_id)}
    told = _Told.of(await all_events(conn, run_id))
    places = await threads.at(conn, run["thread_id"], [int(data["seq"]) for data in told.replies.values()])
    found = []
    for row in rows:
        word, args = words.get(row["decision_id"]), None
        if row["step_no"] in told.calls:
            by, _, asked = told.calls[row["step_no"]]
            args = _parsed(_asked_text(places.get(int(told.replies[by]["seq"])), asked))
        edited = json.loads(row["args"]) if row["args"] is not None else None
        about = {
            "args": _ordered(edited, args) if edited is not None else args,
            "asked_args": args,
            "edited": edited is not None,
            "actor": word["actor"] if word else None,
            "reason": json.loads(word["detail"]).get("reason") if word else None,
        }
        found.append(ApprovalView.model_validate({**row, **about}))
    return found


async def read_waiting(conn: Connection, run_id: str) -> list[WaitingCall]:
    """Return the calls that wait for a person in a run and in those below it, nearest first."""
    rows = await family.waiting(conn, run_id)
    asked: dict[tuple[str, int], Any] = {}
    for each in {str(row["run_id"]) for row in rows if row["kind"] == "approval"}:
        asked.update({(each, approval.step_no): approval.args for approval in await read_approvals(conn, each)})
    return [
        WaitingCall.model_validate(
            {**row, "run_id": str(row["run_id"]), "args": asked.get((str(row["run_id"]), row["step_no"]))}
        )
        for row in rows
    ]


# ---------------------------------------------------------------------------------------------------------- requests


async def read_request(conn: Connection, settings: Settings, run_id: str, step: int) -> tuple[SentRequest, str] | None:
    """Return the request of a recorded model call, and the agent that sent it; None if there is no such call."""
    from holdfast.activities.requests import rebuild_request  # it loads what a worker needs to call a model

    recorded = await requests.get(conn, run_id, step)
    rebuilt = await rebuild_request(conn, settings, run_id, step)
    definition = await runs.definition(conn, recorded.definition) if recorded is not None else None
    if recorded is None or rebuilt is None or definition is None:
        return None
    request, verified = rebuilt
    chosen = {
        "temperature": request.temperature,
        "seed": request.seed,
        "max_tokens": request.max_tokens,
        "response_format": request.response_format,
        "params": _masked(request.params) or None,
        "api_base": _without_password(recorded.params.get("api_base")),
    }
    sent = SentRequest(
        model=request.model,
        messages=request.messages,
        tools=request.tools,
        settings={name: value for name, value in chosen.items() if value is not None},
        hash=recorded.hash,
        verified=verified,
    )
    return sent, definition.name


def _masked(value: Any) -> Any:
    """Return parameters without the values that names such as `api_key` give away; a named secret stays a name."""
    if isinstance(value, dict):
        return {
            name: "***" if _SECRET.search(name) and isinstance(part, str) and not has_secret(part) else _masked(part)
            for name, part in value.items()
        }
    return [_masked(part) for part in value] if isinstance(value, list) else value


def _without_password(url: str | None) -> str | None:
    if url is None or has_secret(url):
        return url
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url

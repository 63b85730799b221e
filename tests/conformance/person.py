"""The person of a drive: decides approvals, says of each call in doubt what the recorder says. Words are said again.

The words come in turn, so that a drive has each of them; whoever asks twice hears the same. The auditor is told of each
word, to hold against what came of it.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import aiohttp
from temporalio.service import RPCError

from holdfast.errors import HoldfastError
from tests.conformance.stage import Stage, now
from tests.kit import until

__all__ = ["NOTE", "REASON", "Person"]

REASON = "not today"  # of every rejection
NOTE = "as a person wants it"  # in the arguments of every call that was edited

_SURE = 2.0  # seconds after the ledger's own deadline until this person believes that nothing will arrive any more
_WORDS = ("approve", "reject", "edit", "signal")  # the last: approve by signal, as from the Web UI
_THOUGHT = 0.8  # seconds that a person thinks an approval over: none, one, two, three or four times this
_LONG_THOUGHT = 5.0  # and of a kind that is patient, until all else in its round is done

_PENDING = """
select a.run_id::text, a.step_no, extract(epoch from clock_timestamp() - a.asked_at)::float8 as waits, t.thread,
       (select e.data->>'args' from holdfast.events e where e.run_id = a.run_id and e.kind = 'approval_requested'
        and e.data->>'step' = a.step_no::text limit 1) as args
from holdfast.approvals a join holdfast.runs r using (run_id) join holdfast.threads t on t.id = r.thread_id
where a.state = 'pending'
"""
# A tool of an MCP server is not told its key unless it is `keyed`: outside, its call is known by what was asked for.
_DOUBTFUL = """
select e.key, e.run_id::text, e.step_no, e.tool,
       coalesce(clock_timestamp() > greatest(e.lease_until, e.deadline) + make_interval(secs => $1), true) as sure,
       (select c->'function'->>'arguments' from holdfast.messages slot, holdfast.messages asked,
            json_array_elements(asked.body->'tool_calls') c
        where slot.run_id = e.run_id and slot.step_no = e.step_no and slot.call_id is not null
          and asked.thread_id = slot.thread_id and asked.role = 'assistant' and c->>'id' = slot.call_id limit 1) as args
from holdfast.effects e where e.state = 'in_doubt'
"""


class Person:
    """Run `serve` beside the drive; cancel it at the end."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._turns: dict[tuple[str, int], int] = {}  # of each approval
        self.refusals: Counter[str] = Counter()  # words that had to be said again, by the error

    async def serve(self) -> None:
        """Look for what waits, over and over."""
        async with aiohttp.ClientSession() as http:
            try:
                while True:
                    for row in await self._stage.rows(_PENDING):
                        turn = self._turns.setdefault((row["run_id"], row["step_no"]), len(self._turns))
                        patient = row["thread"].startswith("patient-")
                        if row["waits"] >= (_LONG_THOUGHT if patient else turn % 5 * _THOUGHT):
                            word = _WORDS[turn % len(_WORDS)]
                            self._begin(f"{row['run_id']}:{row['step_no']}", self._decide(row, word))
                    for row in await self._stage.rows(_DOUBTFUL, _SURE):
                        self._begin(row["key"], self._resolve(http, row))
                    await asyncio.sleep(0.25)
            finally:
                for task in self._busy.values():
                    task.cancel()
                await asyncio.gather(*self._busy.values(), return_exceptions=True)

    def _begin(self, about: str, word: Any) -> None:  # Any: a coroutine
        task = self._busy.get(about)
        if task is not None and not task.done():
            word.close()
            return
        if task is not None:
            task.result()
        self._busy[about] = asyncio.create_task(self._say(word))

    async def _say(self, word: Any) -> None:
        try:
            await word
        except (HoldfastError, RPCError) as exc:
            self.refusals[type(exc).__name__] += 1
            await asyncio.sleep(0.5)

    async def _decide(self, row: dict[str, Any], word: str) -> None:
        at, receipt, args = now(), None, None
        step = str(row["step_no"])
        try:
            run = await self._stage.client.get(row["run_id"])
            if word == "reject":
                receipt = await run.reject(step, reason=REASON, actor="person")
            elif word == "edit":
                args = {**json.loads(row["args"]), "note": NOTE}
                receipt = await run.approve(step, args=args, actor="person")
            elif word == "signal":
                await self._signal(row, step)
            else:
                receipt = await run.approve(step, actor="person")
        finally:
            said = (at, now(), row["run_id"], row["step_no"], word, None if args is None else json.dumps(args))
            await self._stage.note(
                "insert into evidence.words (at, until, run_id, step_no, word, args, decision_id, taken) "
                "values ($1, $2, $3, $4, $5, $6, $7, $8)",
                (*said, None if receipt is None else receipt.decision_id, receipt is not None),
            )

    async def _signal(self, row: dict[str, Any], step: str) -> None:
        """Approve as any Temporal client can, in plain JSON; nobody answers a signal."""
        handle = self._stage.plain.get_workflow_handle(f"{self._stage.world.settings.tenant}:{row['thread']}")
        await handle.signal(
            "decide", {"approve": True, "run_id": row["run_id"], "call_id": step, "actor": "somebody else"}
        )

        async def decided() -> bool:
            return all(
                (row["run_id"], row["step_no"]) != (each["run_id"], each["step_no"])
                for each in await self._stage.rows(_PENDING)
            )

        with suppress(AssertionError):  # it got lost with its workflow: say it again
            await until(decided, "the signal is heard", patience=5.0)

    async def _resolve(self, http: aiohttp.ClientSession, row: dict[str, Any]) -> None:
        key = row["key"]
        if "__once" in row["tool"]:
            args = json.loads(row["args"])
            key = f"{row['tool']}:{args['run']}:{args['n']}"
        async with http.get(f"{self._stage.url}/lookup/{row['tool']}/{quote(key, safe='')}") as answer:
            arrived = str((await answer.json())["result"]) if answer.status == 200 else None
        if arrived is None and not row["sure"]:
            return
        run = await self._stage.client.get(row["run_id"])
        if arrived is not None:
            await run.resolve(row["step_no"], done=arrived, actor="person")
        else:
            await run.resolve(row["step_no"], not_done=True, actor="person")

"""The demo's story. Each tick is looked up: in the database, at the outside recorder, in Temporal or on the disk."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psutil

from holdfast import Client, Event, RunHandle
from holdfast.cli.text import call_text, duration, one_line
from holdfast.server import read_stack
from holdfast.views import ApprovalView, StepView
from scripts.demo_kit.screen import Screen
from scripts.demo_kit.stage import Stage, get

__all__ = ["NotShown", "tell"]

_PATIENCE = 60.0  # seconds for anything that should be soon
_QUOTE = re.compile(r"“([^”]+)” \(([^()\n]+):(\d+)\)")


class NotShown(Exception):
    """Something was not as it should be; the message says what."""


async def tell(stage: Stage, screen: Screen, question: str) -> RunHandle:
    """Ask, approve, kill, and look at what is left. Return the run.

    Raises:
        NotShown: what was looked up is not what Holdfast promises, or nothing in the files answers the question.

    """
    async with asyncio.timeout(stage.settings.scaled(300.0)), await Client.connect(stage.settings) as client:
        story = _Story(stage, screen, client)
        return await story.tell(question)


class _Story:
    def __init__(self, stage: Stage, screen: Screen, client: Client) -> None:
        self._stage = stage
        self._screen = screen
        self._client = client
        self._run: RunHandle | None = None
        self._killed_at = 0.0
        self._victim = 0

    @property
    def run(self) -> RunHandle:
        assert self._run is not None
        return self._run

    async def tell(self, question: str) -> RunHandle:
        await self._stack()
        await self._question(question)
        await self._outcome()
        return self.run

    # ------------------------------------------------------------------------------------ 1: the stack

    async def _stack(self) -> None:
        self._screen.act("A stack of its own", "on this machine, no account, no key")
        info = read_stack(self._stage.info.home)
        alive = [child.name for child in info.children if psutil.pid_exists(child.pid)] if info else []
        workers = [name for name in alive if name.startswith("agents-")]
        agents = await self._client.agents()
        if len(workers) < 2 or not {"temporal", "postgres", "memory"} <= set(alive) or "demo" not in agents:
            raise NotShown(f"the stack is not whole: {', '.join(alive)} run, agents known: {', '.join(agents)}")
        model = self._stage.settings.model or agents["demo"].model
        self._screen.tick(
            f"Temporal, PostgreSQL, Qdrant and {len(workers)} workers are up after {duration(self._stage.took)}",
            "process table",
        )
        self._screen.tick(f"they know the agent “demo”, model {model}", "PostgreSQL")
        if not model.startswith("offline/"):
            return
        self._screen.say("(offline/extractive is not a language model: it searches, reads and quotes)")

    # ------------------------------------------------------------------------------------ 2 to 4: the run

    async def _question(self, question: str) -> None:
        count = sum(1 for path in self._stage.files.rglob("*") if path.is_file())
        self._screen.act("A question to real files", f"{self._stage.files}, {count} files")
        self._screen.say(f"“{question}”")
        self._run = await self._client.start("demo", f"{question} File a report about it.")
        with self._screen.waiting("working"):
            async for event in self.run.events():
                await self._show(event)

    async def _show(self, event: Event) -> None:
        data = event.data
        if event.kind == "replied":
            for call in data.get("calls") or []:
                if call["tool"] != "file_report":
                    self._screen.step(call_text(call["tool"], call.get("args"), 100))
        elif event.kind == "approval_requested":
            await self._approve()
            await self._kill()
        elif event.kind == "in_doubt":
            self._screen.cross(f"in doubt: {data.get('why')}", "ledger")
        elif event.kind == "tool_done" and data.get("tool") == "file_report" and self._victim:
            await self._taken_over()

    async def _approve(self) -> None:
        asked: list[ApprovalView] = [found for found in await self.run.approvals() if found.state == "pending"]
        reports = (await self._stage.recorded())["reports"]
        if len(asked) != 1 or reports:
            raise NotShown(f"{len(asked)} approvals are pending and {len(reports)} reports have arrived")
        self._screen.act("An approval", "the tool acts on the outside world, so a person is asked first")
        self._screen.step(call_text(asked[0].tool, asked[0].args, 300))
        self._screen.tick("it waits, and nothing has been sent", "approvals; recorder: 0 reports")
        await self.run.approve(str(asked[0].step_no), actor="the demo")
        decided = next(found for found in await self.run.approvals() if found.step_no == asked[0].step_no)
        if decided.state != "approved":
            raise NotShown(f"the approval is {decided.state}")
        self._screen.tick(f"approved by {decided.actor}", "audit")

    async def _kill(self) -> None:
        self._screen.act("kill -9", "while the call is in flight: sent, and its answer not yet heard")
        report = await self._until(self._held, "the report arrives at the recorder")
        step = await self._file_report()
        if step is None or step.state != "in_flight" or step.sent_at is None:
            raise NotShown(f"the ledger says {step.state if step else 'nothing'} of a call that is in flight")
        self._victim = int(report["pid"])
        self._screen.tick(
            f"in flight: worker {self._victim} has sent it, the recorder holds its answer back", "ledger, recorder"
        )
        os.kill(self._victim, signal.SIGKILL)
        self._killed_at = time.monotonic()
        await self._until(self._gone, f"process {self._victim} is gone")
        self._screen.struck(f"on purpose: kill -9 {self._victim}, the worker is gone", "process table")

    async def _held(self) -> dict[str, Any] | None:
        reports: list[dict[str, Any]] = (await self._stage.recorded())["reports"]
        return reports[-1] if reports and reports[-1]["held"] else None

    async def _gone(self) -> bool:
        try:
            return psutil.Process(self._victim).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    async def _taken_over(self) -> None:
        took = time.monotonic() - self._killed_at
        step = await self._file_report()
        looks = [look["pid"] for look in (await self._stage.recorded())["looks"]]
        if step is None or step.state != "done" or step.fence < 2 or not looks or self._victim in looks:
            raise NotShown(f"nobody took the call over: {step}, looked up by {looks}")
        self._screen.tick(
            f"worker {looks[-1]} took it over, asked the recorder, and heard that the report is there "
            f"({took:.1f} s after the kill)",
            f"ledger: fence {step.fence}; recorder",
        )

    async def _file_report(self) -> StepView | None:
        return next((step for step in await self.run.steps() if step.tool == "file_report"), None)

    # ------------------------------------------------------------------------------------ 5: what is left

    async def _outcome(self) -> None:
        answer = await self.run.result(timeout=_PATIENCE)
        self._screen.answer(answer.output)
        if not self._victim:
            raise NotShown("the agent filed no report, so there was no call to interrupt. Ask for what the files say.")
        self._screen.act("What is left", "counted afterwards")
        await self._ledger(answer.rounds)
        self._quotes(answer.output)
        await self._temporal()
        with self._screen.waiting("a worker starts in the place of the one that was killed"):
            successor = await self._until(self._replaced, "the supervisor replaces the worker")
        self._screen.tick(f"the supervisor has put worker {successor} in the place of {self._victim}", "process table")

    async def _ledger(self, rounds: int) -> None:
        status, steps = await self.run.status(), await self.run.steps()
        reports = (await self._stage.recorded())["reports"]
        open_steps = [step for step in steps if step.state != "done"]
        sent = [step for step in steps if step.tool == "file_report"]
        if status.state != "done" or open_steps or status.in_doubt or status.approvals:
            raise NotShown(f"the run is {status.state}, not done are {[step.step_no for step in open_steps]}")
        self._screen.tick(f"the run is done: {rounds} model calls, {len(steps)} steps, none open", "ledger")
        if len(reports) != 1 or len(sent) != 1:
            raise NotShown(f"{len(reports)} reports arrived for {len(sent)} calls")
        self._screen.tick(
            f"the report was filed once: 1 call, sent {sent[0].sends} time, 1 report arrived", "ledger, recorder"
        )

    def _quotes(self, text: str) -> None:
        """Open the files and look for what the answer quotes."""
        quotes = _QUOTE.findall(text.partition("\n\nDone: ")[0])
        if not quotes:
            self._screen.say("(the answer names no place in a file)")
            return
        for quote, path, line in quotes:
            lines = (self._stage.files / path).read_text(encoding="utf-8", errors="replace").splitlines()
            there = _flat(" ".join(lines[int(line) - 1 : int(line) + 40]))
            if _flat(quote.removesuffix(" …")) not in there:
                raise NotShown(f"{path} does not say at line {line}: {quote}")
            self._screen.tick(f"“{one_line(quote, 60)}” stands in {path}, line {line}", "disk")

    async def _temporal(self) -> None:
        """Read the workflow's history as the Web UI does."""
        info = self._stage.info
        address = f"{info.temporal_ui}/api/v1/namespaces/{info.namespace}/workflows/{self.run.workflow_id}"
        found = (await get(address))["workflowExecutionInfo"]
        self._screen.tick(
            f"Temporal has all of it: {found['historyLength']} events, {int(found['historySizeBytes']) / 1000:.0f} kB",
            "Temporal",
        )

    async def _replaced(self) -> int | None:
        info = read_stack(self._stage.info.home)
        workers = [child for child in info.children if child.name.startswith("agents-")] if info else []
        before = {child.pid for child in self._stage.info.children}
        fresh = [child.pid for child in workers if child.pid not in before and child.state == "ready"]
        return fresh[0] if fresh else None

    async def _until(self, condition: Callable[[], Awaitable[Any]], what: str) -> Any:
        deadline = time.monotonic() + self._stage.settings.scaled(_PATIENCE)
        while not (found := await condition()):
            if time.monotonic() > deadline:
                raise NotShown(f"not within {_PATIENCE:.0f} s: {what}")
            await asyncio.sleep(0.05)
        return found


def _flat(text: str) -> str:
    """Return a text without markup and line ends, to compare a quote with its file."""
    return re.sub(r"[\s*`_>|#-]+", "", text)

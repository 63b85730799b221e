"""What a directed schedule plays on: a stage with one worker, and one message sent to one thread."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from typing import Any

import aiohttp
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle

from holdfast.contracts import AGENT_WORKFLOW
from holdfast.handles import RunHandle
from tests.conformance.person import Person
from tests.conformance.processes import Born
from tests.conformance.stage import Stage, now
from tests.kit import until

__all__ = ["Scene"]

THREAD = "control-001"
NAME = f"{THREAD}.1"
_TIME_TO_SEND = 1.5  # seconds
FIRST_TASK = 4  # the event that completes a workflow's first task: started, scheduled, started, completed


@dataclass
class Scene:
    """A stage, and words for what a schedule does and waits for."""

    stage: Stage
    first: Born
    off: tuple[str, ...]  # switches of every process
    agent: str
    ends: str  # the state that the run must end in
    run_id: str = ""
    _person: asyncio.Task[None] | None = None
    _closed: set[str] = field(default_factory=set)

    # ------------------------------------------------------------------------------------ what is done

    async def send(self) -> None:
        """Send the message, or send it again."""
        run = await self.stage.client.start(self.agent, NAME, thread=THREAD, message_id=NAME)
        self.run_id = run.run_id
        await self.stage.note(
            "insert into evidence.sent (name, thread, kind, run_id, expected, remembers) "
            "values ($1, $2, 'control', $3, $4, $5)",
            (NAME, THREAD, run.run_id, self.ends, self.agent == "mindful"),
        )

    async def run(self) -> RunHandle:
        """Return the run, as a client holds it."""
        return await self.stage.client.get(self.run_id)

    def attend(self) -> None:
        """From now on a person decides what is asked, and says of calls in doubt what the recorder says."""
        self._person = self._person or asyncio.create_task(Person(self.stage).serve())

    async def start(self, *, execution_timeout: timedelta) -> None:
        """Start the thread's workflow as any Temporal client may."""
        await self.stage.plain.start_workflow(
            AGENT_WORKFLOW,
            id=self.workflow.id,
            task_queue=self.stage.world.settings.task_queue,
            execution_timeout=execution_timeout,
        )

    async def strike(self, kind: str, *, thread: bool = False) -> None:
        """Write down that the first worker was struck, or the thread's workflow."""
        at = now()
        pids, threads = ([], [THREAD]) if thread else ([self.first.pid], [])
        await self.stage.note(
            "insert into evidence.faults (kind, at, until, pids, threads) values ($1, $2, $2, $3, $4)",
            (kind, at, pids, threads),
        )

    async def second(self, role: str = "agents") -> Born:
        """Start a second process."""
        return await self.stage.bear(role, switches=self.off, wait=True)

    async def kill(self) -> None:
        """Kill -9 the first worker; a second one goes on."""
        await self.strike("kill -9 of a worker")
        await self.stage.reap(self.first)
        await self.second()

    async def frozen(self) -> None:
        """Wait until the first worker has stopped.

        The servers drop its connections, or they would hand it tasks that nobody takes, for seconds.
        """
        await until(lambda: self.first.stopped, "the first worker stops")
        await self.strike("SIGSTOP of a worker")
        self.stage.temporal.cut()

    def wake(self) -> None:
        """Let the first worker go on."""
        self.first.signal(signal.SIGCONT)

    async def reset(self, run_id: str) -> None:
        """Reset an execution of the workflow to its first task."""
        await self.strike("Reset through Temporal", thread=True)
        await self.stage.plain.workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace=self.stage.world.settings.temporal_namespace,
                workflow_execution=WorkflowExecution(workflow_id=self.workflow.id, run_id=run_id),
                reason="a control",
                workflow_task_finish_event_id=FIRST_TASK,
                request_id=f"control {run_id}",
            )
        )

    async def let(self, what: str) -> None:
        """Let the late request `land`, or held ones have their `answer`."""
        async with aiohttp.request("POST", f"{self.stage.url}/open/{what}") as opened:
            assert opened.status == 200

    async def approve(self, step_no: int) -> None:
        """Say a person's word, and write down that it was said."""
        at, taken = now(), None
        try:
            taken = await (await self.run()).approve(str(step_no), actor="person")
        finally:
            await self.stage.note(
                "insert into evidence.words (at, until, run_id, step_no, word, decision_id, taken) "
                "values ($1, $2, $3, $4, 'approve', $5, $6)",
                (at, now(), self.run_id, step_no, taken.decision_id if taken else None, taken is not None),
            )

    async def close(self) -> None:
        """Let the person go."""
        if self._person is not None:
            self._person.cancel()
            await asyncio.gather(self._person, return_exceptions=True)

    # ------------------------------------------------------------------------------------ what is waited for

    @property
    def workflow(self) -> WorkflowHandle[Any, Any]:
        """The workflow of the thread, whichever execution is its newest."""
        return self.stage.plain.get_workflow_handle(f"{self.stage.world.settings.tenant}:{THREAD}")

    async def over(self, *statuses: WorkflowExecutionStatus) -> None:
        """Wait until the thread's newest execution has one of these statuses; each counts once."""

        async def found() -> bool:
            described = await self.workflow.describe()
            if described.status not in statuses or described.run_id in self._closed:
                return False
            self._closed.add(described.run_id)
            return True

        await until(found, f"an execution is {', '.join(status.name for status in statuses)}")

    async def sent(self) -> None:
        """Wait until a request has left its process, and has not landed yet."""
        await until((self.stage.world.folder / "sent").exists, "a request is sent")

    async def arrivals(self, count: int) -> None:
        """Wait until the recorder saw so many requests."""
        await until(lambda: len(self.arrived()) >= count, f"{count} requests arrive")

    async def landed(self) -> None:
        """Wait until the request of the first worker has reached the recorder, however late."""
        await until(lambda: str(self.first.pid) in self.arrived(), "the first worker's request arrives")

    def arrived(self) -> list[str]:
        """Return the process id of each request that the recorder saw."""
        log = self.stage.recorder.read_text(encoding="utf-8") if self.stage.recorder.exists() else ""
        return [json.loads(line)["pid"] for line in log.splitlines() if line.endswith("}")]

    async def tried_again(self, arrivals: int) -> None:
        """Wait until so many requests arrived, or until another attempt at the call had the time to send one."""

        async def waits() -> bool:
            if len(self.arrived()) >= arrivals:
                return True
            described = await self.workflow.describe()
            return any(
                again.attempt > 1 and (now() - again.last_started_time.ToDatetime(UTC)).total_seconds() > _TIME_TO_SEND
                for again in described.raw_description.pending_activities
                if again.HasField("last_started_time")
            )

        await until(waits, "another attempt at the call")

    async def row(self, query: str, *args: object) -> dict[str, Any]:
        """Wait until there is such a row, and return it."""

        async def found() -> dict[str, Any] | None:
            rows = await self.stage.rows(query, *args)
            return rows[0] if rows else None

        row: dict[str, Any] = await until(found, query)
        return row

    async def replies(self) -> int:
        """Return how many replies of the model ask for calls; with one round in the script one is right."""
        found = await self.stage.rows(
            "select 1 from holdfast.messages where role = 'assistant' and body::text like '%tool_calls%'"
        )
        return len(found)

    async def refused_or(self, trouble: Callable[[], Any], word: str) -> None:
        """Wait until there is the trouble that the guard prevents, or the first worker's log has what refused it."""

        async def found() -> bool:
            shows = trouble()
            return bool(await shows if asyncio.iscoroutine(shows) else shows) or word in self.first.log.read_text()

        await until(found, f"trouble, or {word!r} in {self.first.log}")

    async def ended(self) -> None:
        """Wait until the run has ended. With a guard off it need not: then not for long."""

        async def found() -> bool:
            return bool(await self.stage.rows("select 1 from holdfast.runs where ended_at is not null"))

        if not self.off:
            await until(found, "the run has ended")
        else:
            with suppress(AssertionError):
                await until(found, "the run has ended", patience=8.0)

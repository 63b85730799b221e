"""The Python client: send messages to agents, find runs. Users, CLI and API call it; it holds no state of its own."""

from __future__ import annotations

import asyncio
import difflib
import uuid
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, overload

from typing_extensions import Unpack

from holdfast.contracts import Accepted, AgentDefinition, Message, Mode, RunState
from holdfast.errors import InvalidInput, StackError, StackNotRunning, ThreadOwned, UnknownAgent, UnknownRun
from holdfast.handles import RunHandle, check_prefix
from holdfast.ids import args_hash, check_part, workflow_id_for
from holdfast.link import Elsewhere, Link
from holdfast.memory import family, runs, threads
from holdfast.memory.database import Connection
from holdfast.settings import Settings, load_settings
from holdfast.views import Answer, MessageView, RunSummary

if TYPE_CHECKING:
    from holdfast.mcp.desk import ServerDesk
    from holdfast.schedules import ScheduleDesk
    from holdfast.typed import Signature

__all__ = ["Client", "RunHandle"]

T = TypeVar("T")
S = TypeVar("S", bound="Signature")


class Sending(TypedDict, total=False):
    """What `run` passes on to `start`."""

    thread: str | None
    message_id: str | None
    mode: Mode


_ACCEPTED_KEPT = 1000  # runs started by a client that it knows by itself; PostgreSQL knows all that are stored
_ID_LENGTH = len(str(uuid.UUID(int=0)))
_LOOK_AGAIN, _LOOK_AGAIN_MAX = 0.05, 1.0  # seconds
_RESTARTING = 15.0  # seconds in which the supervisor of an embedded stack has a server that died up again


class Client:
    """A connection to one Holdfast: `async with await Client.connect() as client: …`."""

    def __init__(self, link: Link) -> None:
        """Wrap an open connection; use `Client.connect`."""
        self._link = link
        self._accepted: dict[str, RunHandle] = {}  # the latest runs that were started here, by id

    @classmethod
    async def connect(cls, settings: Settings | None = None, *, temporal: bool = True) -> Client:
        """Connect to the servers that *settings* name, else to the stack that runs in this folder.

        Reading needs PostgreSQL alone: with *temporal* False, Temporal is connected to when it is needed.

        Raises:
            ConfigurationError: a setting is wrong.
            StackNotRunning: no address is set and no stack runs here.
            StackError, StorageError: a server does not answer; the message says which, and what to check.

        """
        addressed, supervised = _addressed(settings or load_settings())
        patience = addressed.scaled(_RESTARTING) if supervised else 0.0
        return cls(await Link.open(addressed, temporal=temporal, patience=patience))

    @property
    def settings(self) -> Settings:
        """The settings in use, with the addresses that were found."""
        return self._link.settings

    @property
    def mcp(self) -> ServerDesk:
        """The MCP servers that workers have met: `servers()`, `tools(server)`, `accept(tools)`."""
        from holdfast.mcp.desk import ServerDesk

        return ServerDesk(self._link.read, self.settings.home, self.settings.task_queue)

    @property
    def schedules(self) -> ScheduleDesk:
        """Recurring messages, on Temporal Schedules: `create(name, agent, text, cron=…)`, `list()`, `pause(name)` …."""
        from holdfast.schedules import ScheduleDesk

        return ScheduleDesk(self._link, self._check_agent)

    async def close(self) -> None:
        """Close the connections. Runs go on."""
        await self._link.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(
        self,
        agent: str,
        text: str,
        *,
        thread: str | None = None,
        message_id: str | None = None,
        mode: Mode = "next",
    ) -> RunHandle:
        """Send a message to an agent and return its run, which is safe from then on.

        *thread* is the conversation (default: a new one). The same *message_id* on the same thread always names the
        same run, so sending again after an error is safe. Mode `next`: a run of its own, after those before it;
        `steer`: joins the run under way at its next model call.

        Raises:
            InvalidInput: the text is empty or too long, or an id has characters that are not allowed.
            UnknownAgent: no worker has loaded an agent of that name.
            ThreadOwned: the thread belongs to another agent.
            StackError: nobody took the message within `client_patience`; sending it again with the same id is safe.

        """
        data = _check_text(text, self.settings.text_max)
        thread = check_part("thread", thread if thread is not None else f"t-{uuid.uuid4().hex[:12]}")
        message_id = message_id if message_id is not None else uuid.uuid4().hex
        if not 1 <= len(message_id) <= 256 or not message_id.isprintable():
            raise InvalidInput("a message id has 1 to 256 printable characters")
        if mode not in ("next", "steer"):
            raise InvalidInput(f"mode {mode!r} is not known: use next or steer")
        check_part("thread", thread)
        _, queue = await self._link.read(lambda conn: self._place(conn, agent, thread))
        inline = len(data) <= self.settings.text_inline
        ref = None
        if not inline:
            blob = uuid.uuid4().hex  # chosen here, so that storing it again after a lost connection is the same blob
            ref = await self._link.read(lambda conn: threads.put_blob(conn, self._link.tenant, data, blob_id=blob))
        message = Message(message_id=message_id, agent=agent, text=text if inline else None, text_ref=ref, mode=mode)

        async def send() -> Accepted:
            return await self._send(message, thread, queue)

        run_id = (await send()).run_id
        self._accepted[run_id] = started = RunHandle(self._link, run_id, thread, again=send)
        while len(self._accepted) > _ACCEPTED_KEPT:
            del self._accepted[next(iter(self._accepted))]
        return started

    async def _send(self, message: Message, thread: str, queue: str) -> Accepted:
        """Send a message to the workers of *queue*.

        If the thread's workflow still runs on another queue, where it has a run of a moment ago or waits for the next
        message, look up again which queue it is to be, and try again.
        """
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + self._link.patience, _LOOK_AGAIN
        while True:
            try:
                return await (await self._link.wire()).update_with_start(
                    workflow_id_for(self._link.tenant, thread),
                    "message",
                    message.model_copy(update={"queue": queue}),
                    update_id=f"message-{uuid.uuid4().hex}",
                    result_type=Accepted,
                    queue=queue,
                )
            except Elsewhere as exc:
                if loop.time() + pause > deadline:
                    raise StackError(
                        f"For {self._link.patience:.0f} s the message could not be delivered: {exc}. Sending the same "
                        "again is safe."
                    ) from exc
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LOOK_AGAIN_MAX)
            _, queue = await self._link.read(lambda conn: self._place(conn, message.agent, thread))

    @overload
    async def run(
        self, agent: str, text: str, *, output: None = None, timeout: float | None = None, **more: Unpack[Sending]
    ) -> Answer[Any]: ...

    @overload
    async def run(
        self, agent: str, text: str, *, output: type[T], timeout: float | None = None, **more: Unpack[Sending]
    ) -> Answer[T]: ...

    @overload
    async def run(
        self, agent: str, text: str, *, output: Any, timeout: float | None = None, **more: Unpack[Sending]
    ) -> Answer[Any]: ...

    async def run(
        self, agent: str, text: str, *, output: Any = None, timeout: float | None = None, **more: Unpack[Sending]
    ) -> Answer[Any]:
        """Send a message as `start` does, with its arguments, and wait for the answer as `RunHandle.result` does.

        With *output*, a type, the answer's `output` is of that type; else it is what the agent gives: text or JSON.

        Raises:
            RunEnded, OutputInvalid, TimeoutError: as `RunHandle.result`; after *timeout* seconds the run goes on.
            InvalidInput, UnknownAgent, ThreadOwned, StackError: as `start`.

        """
        return await (await self.start(agent, text, **more)).result(timeout, output=output)

    async def predict(
        self,
        signature: type[S],
        *,
        thread: str | None = None,
        message_id: str | None = None,
        timeout: float | None = None,
        **inputs: Any,
    ) -> S:
        """Fill a signature: a run of the agent it stands for, on a thread of its own; return it with its outputs.

        The same *message_id* names the same run, also without a thread: what was predicted is not bought again. It is
        refused with other inputs.

        Raises:
            InvalidInput: an input is missing, unknown or does not fit; or the message id has named other inputs.
            UnknownAgent: no worker has loaded the signature: it belongs into the agents file.
            RunEnded: no valid outputs came of it; `state` says how it ended.
            OutputInvalid: the outputs do not fit the signature as it is here.
            TimeoutError: it has not ended within *timeout* seconds. It goes on.

        """
        from holdfast.typed.signature import agent_name, check_inputs, instance_of, message_of

        given, text = message_of(signature, inputs)
        name = agent_name(signature)
        if thread is None and message_id is not None:
            thread = f"predict-{args_hash({'signature': name, 'message_id': message_id})[:24]}"
        run = await self.start(name, text, thread=thread, message_id=message_id)
        answer = await run.result(timeout)
        if message_id is not None:
            asked = await self._link.read(lambda conn: runs.message_text(conn, run.run_id))
            check_inputs(message_id, given, asked)
        return instance_of(signature, given, answer)

    async def check_agent(self, agent: str, thread: str) -> str:
        """Return who answers a message that is sent to this agent on this thread, which need not be there yet.

        It is the agent itself, or the one to which it has handed the conversation over.

        Raises:
            UnknownAgent: no worker has loaded an agent of that name.
            ThreadOwned: the thread belongs to another agent.

        """
        check_part("thread", thread)
        return await self._link.read(lambda conn: self._check_agent(conn, agent, thread))

    async def history(self, thread: str, last: int = 20) -> list[MessageView]:
        """Return the *last* messages of a thread, in order; none if there is no such thread."""
        tenant = self._link.tenant

        async def look(conn: Connection) -> list[MessageView]:
            row = await threads.find(conn, tenant, thread)
            after = max(row.last_seq - last, 0) if row is not None else 0
            return [MessageView.model_validate(m) for m in await threads.page(conn, tenant, thread, after, last)]

        return await self._link.read(look)

    async def _check_agent(self, conn: Connection, agent: str, thread: str) -> str:
        return (await self._place(conn, agent, thread))[0]

    async def _place(self, conn: Connection, agent: str, thread: str) -> tuple[str, str]:
        """Return who answers a message, and on which task queue: ours, unless workers of another have to end its runs.

        Raises:
            UnknownAgent, ThreadOwned: as `check_agent`.

        """
        tenant, queue = self._link.tenant, self.settings.task_queue
        row = await threads.find(conn, tenant, thread)
        if row is not None and row.queue not in (None, queue):
            queue = await threads.queue_with_work(conn, tenant, thread) or queue
        known = await runs.agent_names(conn, queue)
        if agent not in known:
            mine = self.settings.task_queue
            if queue != mine and agent in await runs.agent_names(conn, mine):
                raise UnknownAgent(
                    f"Thread {thread!r} still has open runs on the task queue {queue!r}, whose workers have no agent "
                    f"{agent[:140]!r}; those of {mine!r}, the task queue of this client, have. Send the message again "
                    f"when these runs have ended (`holdfast runs --thread {thread}` lists them), or on another thread."
                )
            raise UnknownAgent(_no_such_agent(agent, known, queue, await runs.queues_of_agent(conn, agent)))
        if row is None or row.agent is None or row.agent == agent:
            return agent, queue
        if not await family.handed_over(conn, row.id, agent):
            raise ThreadOwned(
                f"thread {thread!r} belongs to agent {row.agent!r}, so {agent!r} cannot answer there. "
                f"Send it to {row.agent!r}, or start another thread."
            )
        return row.agent, queue

    async def get(self, run: str) -> RunHandle:
        """Return the run with this id, or whose id begins so.

        A full id may belong to a run that was accepted a moment ago and is not stored yet, so `get` retries for up to
        `accepted_wait`. Runs that this client has started are found without a retry.

        Raises:
            UnknownRun: there is none, or several begin so.

        """
        prefix = check_prefix(run)

        async def look(conn: Connection) -> RunHandle:
            found = await runs.find(conn, self._link.tenant, prefix)
            if len(found) > 1:
                raise UnknownRun(
                    f"Several runs begin with {prefix!r}. Give more of the id; `holdfast runs` lists them."
                )
            row = await runs.by_id(conn, found[0]) if found else None
            if row is None:
                raise UnknownRun(f"No run begins with {prefix!r}. `holdfast runs` lists the runs there are.")
            return RunHandle(self._link, found[0], row["thread"])

        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.scaled(self.settings.accepted_wait)
        while True:
            try:
                return await self._link.read(look)
            except UnknownRun:
                if prefix in self._accepted:
                    return self._accepted[prefix]
                if len(prefix) < _ID_LENGTH or loop.time() > deadline:
                    raise
            await asyncio.sleep(_LOOK_AGAIN)

    async def runs(self, state: str | None = None, thread: str | None = None, limit: int = 50) -> list[RunSummary]:
        """Return runs, newest first; *state* and *thread* choose among them.

        Raises:
            InvalidInput: there is no such state, or the limit is not between 1 and 1,000.

        """
        states = [known.value for known in RunState]
        if state is not None and state not in states:
            raise InvalidInput(f"state {state!r} is not known: use one of {', '.join(states)}")
        if not 1 <= limit <= 1000:
            raise InvalidInput(f"limit {limit} is not between 1 and 1000")
        rows = await self._link.read(
            lambda conn: runs.listing(conn, self._link.tenant, state=state, thread=thread, limit=limit)
        )
        return [RunSummary.of(dict(row)) for row in rows]

    async def agents(self) -> dict[str, AgentDefinition]:
        """Return the agents that the workers of `HOLDFAST_TASK_QUEUE` have loaded, by name."""
        return await self._link.read(lambda conn: runs.known_agents(conn, self.settings.task_queue))


def _addressed(settings: Settings) -> tuple[Settings, bool]:
    """Return *settings* with both addresses, their own or those of the stack here, and whether they are the stack's."""
    from holdfast.server import now_starting, read_stack, settings_for

    if settings.temporal_address and settings.database_url:
        with suppress(StackError):  # a folder that is not ours says nothing about servers that are set
            info = read_stack(settings.home)
            return settings, info is not None and info.database_url == settings.database_url
        return settings, False
    info = read_stack(settings.home)
    if info is None and (said := now_starting(settings.home)) is not None:
        told = f" ({said})" if said else ""
        raise StackNotRunning(f"The stack in {settings.home.absolute()} is being started{told}. Try again in a moment.")
    if info is None:
        raise StackNotRunning(
            f"No Holdfast stack runs in {settings.home.absolute()}. Start one with `holdfast dev`, change to the "
            "folder where one runs, or set TEMPORAL_ADDRESS and HOLDFAST_DATABASE_URL to servers of your own."
        )
    return settings_for(settings, info), True


def _check_text(text: Any, longest: int) -> bytes:
    """Return the text as UTF-8 if an agent can be sent it."""
    if not isinstance(text, str):
        raise InvalidInput(f"the message must be text, not {type(text).__name__}")
    if not text.strip():
        raise InvalidInput("the message is empty: send some text")
    try:
        data = text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidInput(f"the message is no valid Unicode text at character {exc.start}") from exc
    if len(data) > longest:
        raise InvalidInput(
            f"the message has {len(data):,} bytes, at most {longest:,} are taken. "
            "Put the content into a file that a tool of the agent can read, or raise HOLDFAST_TEXT_MAX."
        )
    if "\0" in text:
        raise InvalidInput("the message contains a NUL character: is it a binary file?")
    return data


def _no_such_agent(agent: str, known: list[str], queue: str = "", others: list[str] | None = None) -> str:
    if others:
        return (
            f"The workers of the task queue {queue!r} have no agent {agent[:140]!r}; those of {others[0]!r} have: "
            f"set HOLDFAST_TASK_QUEUE={others[0]} to ask it."
        )
    if not known:
        return f"There is no agent {agent[:140]!r}: no worker has loaded any agent yet. See `holdfast doctor`."
    close = difflib.get_close_matches(agent, known, n=1, cutoff=0.5)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return (
        f"There is no agent {agent[:140]!r}.{meant} Known: {', '.join(known)}. "
        "One that was just added is known once the workers have loaded the agents file."
    )

"""A terminal for tests: runs `holdfast` commands in a test's world, on pipes or on a pseudo terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from holdfast import Client
from holdfast.handles import RunHandle
from tests.kit import PATIENCE, World, until

__all__ = ["AGENTS", "SCRIPT", "Out", "Terminal", "asked", "on_a_terminal"]

AGENTS = '''
from holdfast import Agent, ToolContext, tool

@tool(effect="pure")
async def order_status(order_id: str) -> dict:
    """Look up one order."""
    return {"order": order_id, "status": "delivered damaged"}

@tool(effect="once", approval="always")
def refund(ctx: ToolContext, order_id: str, amount: float) -> str:
    """Pay money back."""
    return f"refunded {amount} for {order_id}"

@tool(effect="once", approval="always")
def book(flight: str) -> str:
    """Book a flight."""
    return f"booked {flight}"

booker = Agent(name="booker", model="openai/test", instructions="Book.", tools=[book])
desk = Agent(name="desk", model="openai/test", instructions="Travel.", tools=[booker], handoffs=["clerk"])
support = Agent(name="support", model="openai/test", instructions="Help.", tools=[order_status, refund])
clerk = Agent(name="clerk", model="openai/test", instructions="File.")
'''

SCRIPT = """
conversations:
  - when: refund
    replies:
      - call: {refund: {order_id: "17", amount: 40}}
      - say: "The tool said: {{last_tool}}"
  - when: please book
    replies:
      - call: {book: {flight: LH1}}
      - say: "{{last_tool}}"
  - when: a trip
    replies:
      - call: {booker: {message: please book}}
      - say: "Booker said: {{last_tool}}"
  - when: my files
    replies:
      - call: {hand_off_to_clerk: {}}
      - say: the clerk speaks
  - when: story
    replies:
      - say: "once upon a time there was an order that came late but came in the end and all were glad"
        pace: 0.1
  - when: slow
    replies:
      - latency: 30
        say: late
  - replies:
      - call: {order_status: {order_id: "17"}}
      - say: "It says {{last_tool}}"
"""


@dataclass
class Out:
    """What a command left."""

    code: int
    out: str
    err: str


class Terminal:
    """A world with a worker, and commands in it."""

    def __init__(self, world: World, client: Client) -> None:
        self.world = world
        self.client = client
        self.extra: dict[str, str] = {}  # more variables for its commands

    @property
    def command(self) -> list[str]:
        """The command line of this very checkout."""
        return [sys.executable, "-X", "faulthandler", "-c", "from holdfast.cli import main; main()"]

    def environment(self) -> dict[str, str]:
        """Return the variables of a command: the world's, the client's tenant, on a screen of known width."""
        tenant = self.client.settings.tenant
        return {
            **os.environ,
            **self.world.environment(HOLDFAST_TENANT=tenant),
            "COLUMNS": "120",
            "NO_COLOR": "1",
            **self.extra,
        }

    async def __call__(self, *argv: str, stdin: bytes = b"") -> Out:
        """Run a command to its end."""
        process = await asyncio.create_subprocess_exec(
            *self.command,
            *argv,
            cwd=self.world.folder,
            env=self.environment(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(stdin), PATIENCE)
        assert process.returncode is not None
        found = Out(process.returncode, out.decode(), err.decode())
        assert "Traceback" not in found.err, found.err
        return found


async def asked(client: Client, text: str = "refund order 17", thread: str = "c1") -> RunHandle:
    """Start a run and wait until it asks for an approval."""
    run = await client.start("support", text, thread=thread)

    async def pending() -> bool:
        return any(approval.state == "pending" for approval in await run.approvals())

    await until(pending, "an approval is pending")
    return run


async def on_a_terminal(
    terminal: Terminal, argv: list[str], answers: list[tuple[str, bytes | Callable[[], Awaitable[object]]]]
) -> tuple[int, str]:
    """Run a command on a pseudo terminal; when a question is seen, type its answer, or do it."""
    ours, theirs = pty.openpty()
    loop = asyncio.get_running_loop()
    seen = bytearray()
    loop.add_reader(ours, lambda: seen.extend(_read(ours)))
    try:
        process = await asyncio.create_subprocess_exec(
            *terminal.command,
            *argv,
            cwd=terminal.world.folder,
            env={**terminal.environment(), "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        for question, answer in answers:
            try:
                await until(lambda question=question: question.encode() in seen, f"{question!r} is asked")
            except AssertionError as exc:
                exc.add_note(seen.decode(errors="replace")[-3000:])
                raise
            if not isinstance(answer, bytes):
                await answer()
            elif answer == b"\x03":  # the pseudo terminal is nobody's controlling one: send what it would
                process.send_signal(signal.SIGINT)
            else:
                os.write(ours, answer)
        try:
            code = await asyncio.wait_for(process.wait(), PATIENCE)
        except TimeoutError:
            process.send_signal(signal.SIGABRT)  # it tells where it stands, and ends
            await process.wait()
            text = seen.decode(errors="replace")[-6000:]
            raise AssertionError(f"{argv} did not end within {PATIENCE:.0f} s:\n{text}") from None
        return code, seen.decode(errors="replace")
    finally:
        loop.remove_reader(ours)
        os.close(ours)
        os.close(theirs)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:
        return b""

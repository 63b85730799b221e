"""The agents and the model that several pages are run with: a refund to approve, a letter that comes in doubt."""

from __future__ import annotations

from typing import NamedTuple

from holdfast import Client
from holdfast.handles import RunHandle
from tests.kit import PATIENCE, World, until
from tests.terminal import Terminal

__all__ = ["AGENTS", "SCRIPT", "Desk", "answered"]

AGENTS = '''
from pathlib import Path

from holdfast import Agent, tool

@tool(effect="pure")
def order_status(order_id: str) -> str:
    """Look up one order."""
    return "delivered damaged"

@tool(effect="once", approval="always")
def refund(order_id: str, amount: float) -> str:
    """Pay money back."""
    return f"refunded {amount} for {order_id}"

@tool(effect="once", timeout=1)
def letter(to: str) -> str:
    """Write a letter; the first one to somebody is cut off."""
    sent = Path(__file__).with_name(to)
    if not sent.exists():
        sent.touch()
        raise TimeoutError("the connection was cut")
    return "posted"

support = Agent(name="support", model="openai/test", tools=[order_status, refund, letter])
'''


def _seventh(call: str) -> str:
    """Return replies in which *call* is step 7, as it is on the pages."""
    look = '{order_status: {order_id: "%d"}}'
    return f"[{{call: {look % 1}}}, {{call: {look % 2}}}, {{call: {call}}}, {{say: '{{{{last_tool}}}}'}}]"


SCRIPT = f"""
conversations:
  - when: refund
    replies: {_seventh("{refund: {order_id: '17', amount: 40}}")}
  - when: letter to ann
    replies: {_seventh("{letter: {to: ann}}")}
  - when: letter to bob
    replies: {_seventh("{letter: {to: bob}}")}
  - when: letter to eve
    replies: {_seventh("{letter: {to: eve}}")}
  - when: parcel
    replies:
      - call: {{ship: {{item: lamp}}}}
      - say: "{{{{last_tool}}}}"
  - replies:
      - call: {{order_status: {{order_id: "17"}}}}
      - say: "It was {{{{last_tool}}}}."
"""


async def answered(world: World, thread: str, said: str, patience: float = PATIENCE) -> None:
    """Wait until the last message of a thread has *said*."""

    async def look() -> bool:
        rows = await world.rows(
            "select m.body from messages m join threads t on t.id = m.thread_id where t.thread = $1 order by m.id desc",
            thread,
        )
        return bool(rows) and said in str(rows[0]["body"])

    await until(look, f"thread {thread} says {said!r}", patience)


class Desk(NamedTuple):
    """A world with a worker whose model follows the script, a client, and a shell in it."""

    world: World
    client: Client
    terminal: Terminal

    async def in_state(self, text: str, thread: str, state: str) -> RunHandle:
        """Send a message and wait until its run is in a state."""
        run = await self.client.start("support", text, thread=thread)

        async def there() -> bool:
            return (await run.status()).state == state

        await until(there, f"{text} is {state}")
        return run

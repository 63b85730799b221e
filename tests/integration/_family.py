"""The agents that the tests of sub-agents ask, and what their models say."""

from __future__ import annotations

from typing import Any

from holdfast.handles import RunHandle
from tests.kit import World

__all__ = ["AGENTS", "SCRIPT", "TOOLS", "family", "notes"]

TOOLS = '''
import asyncio, pathlib
from typing import Literal
from pydantic import BaseModel
from holdfast import Agent, Budget, ToolContext, tool
from holdfast.tools import agent_tool

HERE = pathlib.Path(__file__).parent

@tool(effect="once")
async def note(ctx: ToolContext, text: str) -> str:
    """Write something down."""
    with (HERE / "notes").open("a") as file:
        file.write(text + "\\n")
    return f"noted {text}"

@tool(effect="pure", timeout=120)
async def gate(name: str) -> str:
    """Wait until a person opens the gate."""
    (HERE / f"{name}.waiting").touch()
    while not (HERE / f"{name}.open").exists():
        await asyncio.sleep(0.05)
    return f"{name} is open"
'''

AGENTS = (
    TOOLS
    + '''
@tool(effect="once", approval="always")
async def pay(amount: float) -> str:
    """Pay."""
    return f"paid {amount}"

class Place(BaseModel):
    city: str
    days: int = 1

leaf = Agent("leaf", "openai/test", "You are leaf.", tools=[note, gate, pay], description="Notes things down.")
poor = Agent("poor", "openai/test", "You are poor.", tools=[note], budget=Budget(tokens=30))
middle = Agent("middle", "openai/test", "You are middle.", tools=[leaf])
again = agent_tool("self", name="again", description="Asks itself.")
self_ = Agent("self", "openai/test", "You are self.", tools=[again])

class Weather(BaseModel):
    """What it is like."""
    sky: Literal["clear", "grey"]
    degrees: float

seer = Agent("seer", "openai/test", "You are seer.", output=Weather, corrections=1)
seers = Agent("seers", "openai/test", "You are seers.", output=list[Weather])
moody = Agent("moody", "openai/test", "You are moody.", handoffs=[leaf])
boss = Agent(
    "boss",
    "openai/test",
    "You are boss.",
    tools=[
        leaf, middle, poor, note, seer, seers, moody,
        agent_tool("nobody", description="Not there."),
        leaf.as_tool(name="weather", input=Place, description="The weather."),
        leaf.as_tool(name="careful", approval="always"),
    ],
)
thrifty = Agent("thrifty", "openai/test", "You are boss.", tools=[leaf, middle], budget=Budget(tokens=200))
crowded = Agent("crowded", "openai/test", "You are boss.", tools=[leaf], budget=Budget(tokens=1500))
'''
)

_SCRIPT = """
conversations:
  - when: {system: You are boss, user: twenty}
    replies:
      - call: [TWENTY]
      - say: "all: {{last_tool}}"
  - when: {system: You are boss, user: nested}
    replies:
      - call: {middle: {message: "nested deeper"}}
      - say: "boss: {{last_tool}}"
  - when: {system: You are middle}
    replies:
      - call: {leaf: {message: "{{user}}"}}
      - say: "middle: {{last_tool}}"
  - when: {system: You are boss, user: failing}
    replies:
      - call: [{leaf: {message: broken}}, {poor: {message: spend}}, {nobody: {message: hello}}]
      - say: "went on"
  - when: {system: You are boss, user: typed}
    replies:
      - call: {weather: {city: Bern, days: 2}}
      - call: {weather: {days: many}}
      - say: "boss: {{last_tool}}"
  - when: {system: You are boss, user: careful}
    replies:
      - call: {careful: {message: "one line"}}
      - say: "boss: {{last_tool}}"
  - when: {system: You are boss, user: pay}
    replies:
      - call: {leaf: {message: "pay please"}}
      - say: "boss: {{last_tool}}"
  - when: {system: You are boss, user: /gate-/}
    replies:
      - call: [{leaf: {message: "{{user}}"}}, {middle: {message: "{{user}}-deep"}}]
      - say: "boss: {{last_tool}}"
  - when: {system: You are boss, user: tokens}
    replies:
      - repeat: 20
        call: {middle: {message: "count {{n}}"}}
      - say: never
  - when: {system: You are boss, user: long}
    replies:
      - call: {leaf: {message: "a long answer"}}
      - say: "boss: done"
  - when: {system: You are boss, user: outlook}
    replies:
      - call: [{seer: {message: "today"}}, {seers: {message: "the week"}}, {seer: {message: "in a year"}}]
      - say: "boss: {{last_tool}}"
  - when: {system: You are seer, user: today}
    replies:
      - say: 'Here it is: {"sky": "grey", "degrees": 7}'
  - when: {system: You are seers, user: the week}
    replies:
      - say: '{"value": [{"sky": "grey", "degrees": 7}, {"degrees": 9.5, "sky": "clear"}]}'
  - when: {system: You are seer, user: in a year}
    replies:
      - say: "nobody knows"
  - when: {system: You are seer, user: cannot be used}
    replies:
      - say: never
      - say: "I said so"
  - when: {system: You are boss, user: mood}
    replies:
      - call: {moody: {message: "what a mood"}}
      - say: "boss: {{last_tool}}"
  - when: {system: You are moody}
    replies:
      - call: {hand_off_to_leaf: {note: "not today"}}
      - say: never
  - when: {system: You are leaf, user: what a mood}
    replies:
      - say: never
      - call: {note: {text: "{{user}}"}}
      - say: "leaf: {{last_tool}}"
  - when: {system: You are self}
    replies:
      - call: {again: {message: "again"}}
      - say: "self: {{last_tool}}"
  - when: {system: You are leaf, user: broken}
    replies:
      - fault: {status: 401, times: always}
        say: never
  - when: {system: You are leaf, user: pay}
    replies:
      - call: {pay: {amount: 3}}
      - say: "leaf: {{last_tool}}"
  - when: {system: You are leaf, user: /gate-/}
    replies:
      - call: {gate: {name: "{{user}}"}}
      - say: "leaf: {{last_tool}}"
  - when: {system: You are leaf, user: a long answer}
    replies:
      - say: "LONG"
  - when: {system: You are leaf, user: /Bern/}
    replies:
      - say: "sunny, I was asked {{user}}"
  - when: {system: You are leaf}
    replies:
      - call: {note: {text: "{{user}}"}}
      - say: "leaf: {{last_tool}}"
  - when: {system: You are poor}
    replies:
      - repeat: 9
        call: {note: {text: "poor {{n}}"}}
      - say: never
"""
SCRIPT = _SCRIPT.replace("TWENTY", ", ".join(f"{{leaf: {{message: number {n}}}}}" for n in range(20))).replace(
    "LONG", "x" * 40_000
)


async def family(world: World, run: RunHandle) -> list[dict[str, Any]]:
    """Return all runs below one, in the order in which they began."""
    return await world.rows(
        "select run_id::text, agent, state, depth, parent_run_id::text as parent from runs"
        " where root_run_id = $1 order by created_at",
        run.run_id,
    )


def notes(world: World) -> list[str]:
    """Return what was written down, each once for every time it was."""
    path = world.folder / "notes"
    return path.read_text().split("\n")[:-1] if path.exists() else []

"""A clerk with two plugins: card numbers never reach model, database or people; each event goes to an audit file."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

from holdfast import Agent, Event, Plugin, Refused, tool
from holdfast.plugins import At, ModelCall, Reply, ToolResult

CARD = re.compile(r"\b(?:\d[ -]?){13,19}\b")
AUDIT = Path(os.environ.get("AUDIT", "audit.jsonl"))


class Redactor(Plugin):
    order = -10  # outermost: whatever other plugins put in passes here on its way out

    def _clean(self, text: str) -> str:
        return CARD.sub("[card]", text)

    def message(self, at: At, text: str) -> str | None:
        return self._clean(text)

    def before_model(self, at: At, call: ModelCall) -> ModelCall | None:
        if CARD.search(json.dumps(call.messages)):  # it should have been taken out on its way in
            raise Refused("a card number is on its way to the model")
        return None

    def after_model(self, at: At, reply: Reply) -> Reply | None:
        calls = [replace(call, arguments=self._clean(call.arguments)) for call in reply.calls]
        return replace(reply, text=reply.text and self._clean(reply.text), calls=calls)

    def after_tool(self, at: At, result: ToolResult) -> str | None:
        return self._clean(result.text)


class Audit(Plugin):
    required = True  # an event that could not be written is told again

    def event(self, event: Event) -> None:
        # Each event comes at least once: whoever reads the file knows one by run_id and seq.
        with AUDIT.open("a", encoding="utf-8") as file:
            file.write(event.model_dump_json() + "\n")


@tool(effect="pure")
def customer(name: str) -> dict:
    """Look a customer up.

    Args:
        name: the customer's first name.
    """
    return {"name": name, "card": "4111 1111 1111 1111", "city": "Riga"}


plugins = [Redactor(), Audit()]

clerk = Agent(
    name="clerk",
    model="openai/gpt-5-mini",
    instructions="Help with customers. Never ask for card numbers.",
    tools=[customer],
)

"""The agents of test_testing_kit: each asks for one thing that a test kit must cope with."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from holdfast import Agent, tool


class Ticket(BaseModel):
    """A typed answer."""

    urgency: Literal[1, 2, 3]


@tool
def pay(to: str) -> str:
    """Pay, slowly."""
    with Path(os.environ["HOLDFAST_HOME"], "paid.txt").open("a", encoding="utf-8") as book:
        book.write(f"{to}\n")
    time.sleep(3)
    return f"paid {to}"


@tool(effect="pure")
def look(order: str) -> str:
    """Look an order up."""
    return f"order {order}"


payer = Agent("payer", "openai/gpt-5-mini", tools=[pay])
helper = Agent("helper", "openai/gpt-5-mini", tools=[look], description="Looks things up.")
boss = Agent("boss", "anthropic/claude-sonnet-4-5", tools=[helper])
triage = Agent("triage", "openai/gpt-5-mini", output=Ticket)
elsewhere = Agent("elsewhere", "openai/gpt-5-mini", api_base="http://127.0.0.1:1/v1")
quoting = Agent("quoting", "offline/extractive", tools=[look])

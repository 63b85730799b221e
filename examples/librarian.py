"""Answers from a folder of files, with sources. Start it with: holdfast dev examples/librarian.py"""

import os

from holdfast import Agent, Budget, files
from holdfast.tools import calculator, current_time

librarian = Agent(
    name="librarian",
    model="openai/gpt-5-mini",
    instructions="Answer from the files. Search, read what you found, quote it, and name path and line.",
    tools=[*files(os.environ.get("LIBRARY", ".")), calculator, current_time],
    memory=True,  # within a conversation: recall before a run, remember after it, tools `remember` and `recall`
    budget=Budget(usd=0.20, rounds=30),
)

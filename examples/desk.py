"""A desk with many drawers: files it may write, tables, a database, the web, one program. Each drawer has its lock."""

import os
from pathlib import Path

from holdfast import Agent, Budget, files
from holdfast.tools import Command, calculator, queries, result_tools, run_state, shell, sql_query, web_page

ROOT = Path(os.environ.get("DESK", "."))
NOTES = ROOT / "notes"  # what it writes: no code that runs lies there
NOTES.mkdir(exist_ok=True)

desk = Agent(
    name="desk",
    model="openai/gpt-5-mini",
    instructions="Answer from the tables, the database and the web. Write down what you find, with its source.",
    tools=[
        files(ROOT),  # list, search, read
        files(NOTES, write=True, prefix="notes_"),  # also write, patch, delete: keyed, never outside
        queries(ROOT),  # csv_query by SQL, json_query by JMESPath: over files, text, or a large result
        sql_query(env="DESK_DATABASE"),  # reads only, with a role that can do nothing else; sql_schema comes along
        web_page(["docs.python.org", "*.wikipedia.org"]),  # pages of these hosts as text; "*" asks a person each time
        shell({"lines": Command(["wc", "-l", "{path:path}"], "Count the lines of a file.", effect="pure")}, root=ROOT),
        result_tools,  # result_page, result_search, result_select: the rest of what was trimmed
        run_state,  # how another run stands
        calculator,
    ],
    budget=Budget(usd=0.50, rounds=40),
)

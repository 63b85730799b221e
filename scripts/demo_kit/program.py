"""The demo as a program: options, exit codes, what to try next. Only `__main__` calls it."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.text import Text

from holdfast import HoldfastError
from holdfast.cli.text import duration, short
from scripts.demo_kit.screen import Screen
from scripts.demo_kit.stage import KEPT, ROOT, Stage, set_up
from scripts.demo_kit.story import NotShown, tell

__all__ = ["main"]

QUESTION = "What happens to a tool call when its worker is killed?"


def main() -> int:
    """Run the demo; return its exit code: 0 all was shown, 1 something was not, 2 wrong input, 130 interrupted."""
    options = _options()
    screen = Screen(Console(highlight=False, width=None if sys.stdout.isatty() else 120))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            with screen.waiting("starting Temporal, PostgreSQL, memory and workers"):
                stage = stack.enter_context(set_up(options.files, keep=options.keep))
            return _show(stage, screen, options, began)
    except KeyboardInterrupt:
        screen.console.print(Text("\n   interrupted; nothing is left running", style="yellow"))
        return 130
    except NotShown as exc:
        screen.cross(str(exc))
    except TimeoutError:
        screen.cross("it took too long. HOLDFAST_TIME_SCALE=3 gives a slow machine more time.")
    except HoldfastError as exc:
        screen.cross(str(exc))
    return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description="Holdfast at work, without a key.")
    parser.add_argument("--files", type=Path, metavar="DIR", help="files to answer from (default: the project's docs)")
    parser.add_argument("--ask", metavar="QUESTION", help="what to ask of them")
    parser.add_argument("--keep", action="store_true", help="leave the stack running")
    options = parser.parse_args()
    if (options.files is None) != (options.ask is None):
        parser.error("--files DIR and --ask QUESTION belong together")
    start = Path(os.environ.get("DEMO_FROM", "."))
    options.files = (start / options.files).resolve() if options.files else ROOT / "docs"
    if not options.files.is_dir():
        parser.error(f"--files: {options.files} is no folder")
    options.ask = " ".join((options.ask or QUESTION).split())
    if not options.ask:
        parser.error("--ask: the question is empty")
    if options.ask[-1] not in ".!?":
        options.ask += "?"
    return options


def _show(stage: Stage, screen: Screen, options: argparse.Namespace, began: float) -> int:
    run = asyncio.run(tell(stage, screen, options.ask))
    screen.tick(f"all of it in {duration(time.monotonic() - began)}", "clock")
    screen.link("Web UI", run.ui_url() or "")
    here = os.environ.get("DEMO_FROM", ".")
    holdfast = os.path.relpath(ROOT / ".venv" / "bin" / "holdfast", here)
    home = f"HOLDFAST_HOME={os.path.relpath(KEPT, here)} {holdfast}"
    if options.keep:
        screen.say("\nThe stack stays for an hour without work. Try next:")
        screen.rows(
            [
                (f"{home} show {short(run.run_id)}", "each step, what it cost, who approved"),
                (f'{home} run demo "your question"', "ask it something else"),
                (f"{home} down", "stop the stack"),
            ]
        )
        return 0
    screen.say("\nTry next:")
    screen.rows(
        [
            ('scripts/demo --files DIR --ask "…"', "the same with your own files"),
            ("scripts/demo --keep", "leave the stack running, to look at it with the CLI"),
            ("docs/quickstart.md", "an agent of your own in five minutes"),
        ]
    )
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        screen.say("\nThe stack stops now, and with it the Web UI; --keep leaves both.")
    else:
        screen.console.print(Text("\n   The Web UI is up until you press Enter. ", style="bold"), end="")
        sys.stdin.readline()
    return 0

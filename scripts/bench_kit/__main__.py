"""Starts a benchmark: `python -m scripts.bench_kit steps|resume|rows` from the checkout."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Measure, print a table, write JSON; 0 when all runs ended as they should."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures Holdfast on this machine.")
    parser.add_argument("what", choices=["steps", "resume", "rows"])
    parser.add_argument(
        "--rounds", type=int, default=None, help="measured rounds (steps: 15, rows: 20, resume: 2 kills a place)"
    )
    parser.add_argument(
        "--load", type=int, nargs="+", default=[0], help="resume: busy processes beside it, one turn each"
    )
    parser.add_argument("--only", default="", help="resume: only places whose name has this text; nobody unharmed")
    parser.add_argument("--out", type=Path, default=None, help="file for all figures, as JSON")
    options = parser.parse_args()
    out: Path = options.out or Path(tempfile.gettempdir()) / f"holdfast-bench-{options.what}.json"
    if options.what == "rows":
        from scripts.bench_kit import rows

        asyncio.run(rows.measure(options.rounds or 20, out))
    elif options.what == "steps":
        from scripts.bench_kit import steps

        asyncio.run(steps.measure(options.rounds or 15, out))
    else:
        from scripts.bench_kit import resume

        asyncio.run(resume.measure(options.rounds or 2, options.load, out, options.only))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # nor may a time-out leave servers behind
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

"""Figures as a table and as JSON. The benchmarks call it."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import temporalio.service
from rich.console import Console
from rich.table import Table

import holdfast

__all__ = ["quantile", "show", "spread"]

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least *share* of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return what describes a list of seconds."""
    return {
        "n": len(values),
        "min": min(values),
        "p25": quantile(values, 0.25),
        "median": statistics.median(values),
        "p75": quantile(values, 0.75),
        "p95": quantile(values, 0.95),
        "max": max(values),
    }


def show(title: str, rows: Mapping[str, Mapping[str, float]], notes: Sequence[str], out: Path, raw: Any) -> None:
    """Print a table of seconds, one row per name, and write everything to *out*. *raw* is any JSON."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    for column in columns:
        table.add_column(column, justify="right")
    for name, row in rows.items():
        table.add_row(name, *(_cell(column, row.get(column)) for column in columns))
    console.print(table)
    machine = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "holdfast": holdfast.__version__,
        "temporalio": temporalio.service.__version__,
    }
    for note in (*notes, ", ".join(f"{name} {value}" for name, value in machine.items())):
        console.print(f"  {note}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "rows": rows, "notes": notes, "raw": raw}, indent=1), "utf-8")
    console.print(f"  all figures: {out}\n")


def _cell(column: str, value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if column == "n" else f"{value:.3f}" if value < 10 else f"{value:.1f}"

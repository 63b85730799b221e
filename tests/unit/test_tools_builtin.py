"""Calculator, clock, and the two tools that memory carries out."""

from __future__ import annotations

import asyncio
import datetime as dt
import subprocess
import sys
import time
from pathlib import Path

import pytest

from holdfast.errors import ToolArgumentsInvalid, ToolError, ToolNotStarted
from holdfast.tools import ToolContext, calculator, current_time, recall, remember


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("1 + 2 * 3", "7"),
        ("(17.5 + 3) * 2 ** 8", "5248"),
        ("0.1 + 0.2", "0.3"),
        ("2^10", "1024"),
        ("7 // 2 + 7 % 4", "6"),
        ("-3 \u00d7 4 \u00f7 2", "-6"),
        ("round(2 / 3, 2)", "0.67"),
        ("sqrt(16) + max(1, 2, 3) - abs(-1)", "6"),
        ("10 / 4", "2.5"),
        ("2 ** -1", "0.5"),
        ("cos(pi)", "-1"),
        ("10 ** 400 / 10 ** 399", "10"),
        ("1 ** 99999", "1"),
        ("round(1234, -2)", "1200"),
    ],
)
def test_arithmetic(expression: str, result: str) -> None:
    """Whole numbers stay whole, binary noise is rounded away."""
    assert calculator(expression) == result


DEEP = "-" * 490 + "1"
REFUSED = """
9 ** 9 ** 9; 10 ** 5000; (10 ** 1000) ** 2; 1 / 0; 7 % 0; 7 // 0; 1e308 * 10; (-8) ** 0.5; 2.0 ** 99999; exp(1000)
__import__('os'); ().__class__; a; 'a' * 9; [1] * 9; True + 1; 1 if 1 else 2; x := 1; lambda: 1; 1j
1 +; 1,000 + 1; sqrt(-1); log(0); round(1, ndigits=2); max(); round(5, -10 ** 30); round(5.5, 10 ** 30); round(1, 0.5)
"""


@pytest.mark.parametrize("expression", [*REFUSED.strip().replace("\n", "; ").split("; "), "(" * 400, DEEP, " "])
def test_what_is_no_arithmetic_or_too_much_is_refused_at_once(expression: str) -> None:
    """No code runs, no expression takes time or memory; each refusal is a message for the model."""
    began = time.monotonic()
    if expression == DEEP:
        assert calculator(expression) == "1"
    else:
        with pytest.raises(ToolError):
            calculator(expression)
    assert time.monotonic() - began < 15


def test_expression_length_is_bounded() -> None:
    """Before anything is parsed."""
    with pytest.raises(ToolArgumentsInvalid, match="expression"):
        calculator.validate({"expression": "1+" * 300 + "1"})


def test_current_time() -> None:
    """ISO 8601 with offset, weekday and zone; the default is UTC."""
    text = current_time(**current_time.validate({}))
    stamp, _, rest = text.partition(" ")
    assert abs(dt.datetime.fromisoformat(stamp) - dt.datetime.now(dt.UTC)) < dt.timedelta(seconds=10)
    assert rest.endswith("UTC)")
    assert dt.datetime.fromisoformat(current_time("Asia/Kolkata").split()[0]).utcoffset() == dt.timedelta(hours=5.5)


@pytest.mark.parametrize(
    "zone", ["Europe/Berln", "../etc/passwd", "/etc/localtime", "America", "", "x" * 500, "a\x00b"]
)
def test_unknown_zones(zone: str) -> None:
    """Also names that are paths or folders; a near name is offered."""
    with pytest.raises(ToolError, match="there is no time zone") as caught:
        current_time(zone)
    if zone == "Europe/Berln":
        assert "Did you mean Europe/Berlin" in str(caught.value)


def test_tools_load_when_they_are_used() -> None:
    """An agents file that declares some loads no HTTP client, driver or query language, and no other tools."""
    script = """
import sys
import holdfast.tools
from holdfast.tools import files, http_request, queries, result_tools, shell, sql_query, web_page
http_request("*", methods=["GET", "POST"]), web_page("*"), queries("."), files(".", write=True), sql_query("sqlite:///x.db")
heavy = {"aiohttp", "asyncpg", "yarl", "jmespath", "sqlite3"} & set(sys.modules)
assert not heavy, heavy
assert "holdfast.tools.builtin.arithmetic" not in sys.modules
assert all(getattr(holdfast.tools, name) is not None for name in holdfast.tools.__all__)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, cwd=Path(__file__).parents[2])


def test_memory_tools_are_declared_for_the_memory_queue() -> None:
    """Their bodies are never run by a worker; remembering is safe to repeat because it is keyed."""
    assert (remember.routed, recall.routed) == ("memory", "memory")
    assert (remember.definition.queue, recall.definition.queue) == ("memory", "memory")
    assert (remember.definition.effect, recall.definition.effect) == ("keyed", "pure")
    assert remember.validate({"text": "x"}) == {"text": "x"}
    assert recall.validate({"query": "x"}) == {"query": "x", "limit": 5}
    ctx = ToolContext(idempotency_key="k", tenant="t", thread="t", run_id="r", step_no=1, deadline=0.0)
    for call in (remember(ctx, "x"), recall("x")):
        with pytest.raises(ToolNotStarted, match="memory process"):
            asyncio.run(call)

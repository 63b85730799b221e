"""The judge of the crash tests is judged itself: what it counts, dedupes, remembers and answers."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.kit import until

PROGRAM = Path(__file__).with_name("recorder.py")


@contextlib.contextmanager
def recorder(log: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the program; give its URL and its process."""
    command = [sys.executable, str(PROGRAM), "--port", "0", "--log", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}", process
        finally:
            process.terminate()


def entries(log: Path) -> list[dict[str, Any]]:
    """Read the log."""
    return [json.loads(line) for line in log.read_text().splitlines()]


async def post(
    session: aiohttp.ClientSession, path: str, key: str | None, body: Any, **headers: str
) -> tuple[int, dict[str, Any]]:
    """Send one effect; give status and answer."""
    if key is not None:
        headers["Idempotency-Key"] = key
    async with session.post(path, json=body, headers=headers) as response:
        return response.status, await response.json()


async def get(session: aiohttp.ClientSession, path: str) -> tuple[int, dict[str, Any]]:
    """Ask; give status and answer."""
    async with session.get(path) as response:
        return response.status, await response.json()


async def test_gates_hold_an_effect_or_its_answer(tmp_path: Path) -> None:
    """At a gate a request waits before its effect, or after it; an open gate stays open."""
    log = tmp_path / "log"
    with recorder(log) as (url, _):
        async with aiohttp.ClientSession(url) as session:
            late = asyncio.create_task(post(session, "/effect/once_pay?land=a", "k1", {}))
            held = asyncio.create_task(post(session, "/effect/once_pay?answer=b", "k2", {}))
            await until(lambda: entries(log), "one of them takes effect")
            await post(session, "/open/a", None, {})
            assert await late == (200, {"result": "once_pay #2"})
            assert not held.done()
            await post(session, "/open/b", None, {})
            assert await held == (200, {"result": "once_pay #1"})
            assert await post(session, "/effect/once_pay?land=a&answer=b", "k3", {}) == (200, {"result": "once_pay #3"})


async def test_keyed_dedupes_and_the_others_do_not(tmp_path: Path) -> None:
    """A repeated key is one effect for `keyed…`, also at the same moment, and as many effects as arrivals otherwise."""
    log = tmp_path / "log"
    with recorder(log) as (url, _):
        async with aiohttp.ClientSession(url) as session:
            same = [post(session, "/effect/keyed_pay?delay_before=20", "k1", {"amount": 3}) for _ in range(5)]
            answers = await asyncio.gather(*same)
            assert answers == [(200, {"result": "keyed_pay #1"})] * 5
            assert await post(session, "/effect/keyed_pay", "k2", {}) == (200, {"result": "keyed_pay #2"})
            for n, tool in enumerate(["once_pay", "once_pay", "verifiable_pay", "verifiable_pay"], 3):
                assert await post(session, f"/effect/{tool}", "k1", {}) == (200, {"result": f"{tool} #{n}"})
            by_tool = {"keyed_pay": 2, "once_pay": 2, "verifiable_pay": 2}
            assert await get(session, "/count") == (200, {"effects": 6, "deduped": 4, "by_tool": by_tool})
    assert [entry["kind"] for entry in entries(log)] == ["effect", *["duplicate-deduped"] * 4, *["effect"] * 5]
    assert entries(log)[0].items() >= {"tool": "keyed_pay", "key": "k1", "args": {"amount": 3}}.items()


async def test_lookup_and_caller(tmp_path: Path) -> None:
    """The look-up finds an effect once it took place, and the log names the caller; the key may stand in the body."""
    log = tmp_path / "log"
    with recorder(log) as (url, _):
        async with aiohttp.ClientSession(url) as session:
            assert (await get(session, "/lookup/verifiable_pay/k1"))[0] == 404
            assert (await post(session, "/effect/verifiable_pay", None, {"key": "k1", "x": "é"}, **{"X-Pid": "42"}))[
                0
            ] == 200
            assert await get(session, "/lookup/verifiable_pay/k1") == (200, {"result": "verifiable_pay #1"})
            assert (await get(session, "/lookup/once_pay/k1"))[0] == 404
    [entry] = entries(log)
    assert (entry["pid"], entry["args"]) == ("42", {"x": "é"})


async def test_on_disk_before_the_answer_and_after_a_kill(tmp_path: Path) -> None:
    """What was answered survives a kill -9 and a cut line, and still dedupes."""
    log = tmp_path / "log"
    with recorder(log) as (url, process):
        async with aiohttp.ClientSession(url) as session:
            assert (await post(session, "/effect/keyed_pay", "k1", {}))[0] == 200
            process.kill()
    with log.open("a") as file:
        file.write('{"kind": "effect", "to')
    with recorder(log) as (url, _):
        async with aiohttp.ClientSession(url) as session:
            assert await post(session, "/effect/keyed_pay", "k1", {}) == (200, {"result": "keyed_pay #1"})
            assert await get(session, "/count") == (200, {"effects": 1, "deduped": 1, "by_tool": {"keyed_pay": 1}})
            assert await post(session, "/effect/once_pay", "k9", {}) == (200, {"result": "once_pay #2"})
    assert json.loads(log.read_text().splitlines()[-1])["n"] == 2


async def test_a_caller_that_hangs_up_has_had_its_effect(tmp_path: Path) -> None:
    """A request that arrived takes effect although its caller died, before or after."""
    log = tmp_path / "log"
    with recorder(log) as (url, _):
        async with aiohttp.ClientSession(url) as session:
            for n, moment in enumerate(("delay_before", "delay_after"), 1):
                hasty = aiohttp.ClientTimeout(total=0.1)
                with pytest.raises(TimeoutError):
                    await session.post(f"/effect/once_pay?{moment}=400", json={"key": f"k{n}"}, timeout=hasty)
            async with asyncio.timeout(10):
                while (await get(session, "/count"))[1]["effects"] < 2:
                    pass
    assert [entry["key"] for entry in entries(log)] in (["k1", "k2"], ["k2", "k1"])


async def test_bad_requests_are_no_effects(tmp_path: Path) -> None:
    """No key, two keys, no JSON object, no number: refused, and nothing is counted."""
    log = tmp_path / "log"
    with recorder(log) as (url, _):
        async with aiohttp.ClientSession(url) as session:
            for path, key, body in [
                ("/effect/once", None, {}),
                ("/effect/once", "a", {"key": "b"}),
                ("/effect/once", "a", [1]),
                ("/effect/once?delay_before=soon", "a", {}),
            ]:
                status, answer = await post(session, path, key, body)
                assert (status, list(answer)) == (400, ["error"])
            async with session.post("/effect/once", data=b"{") as response:
                assert response.status == 400
    assert entries(log) == []


def test_it_shares_no_code() -> None:
    """The program imports the standard library and aiohttp, nothing else."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(PROGRAM.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or ".").partition(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"aiohttp"}

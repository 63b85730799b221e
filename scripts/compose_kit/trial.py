"""What is looked at: runs, an approval over the death of each server, health checks in both states, data that stays."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from scripts.compose_kit.stack import Stack, Wrong

_REFUND = "Please refund 40 dollars for order 17"
_PATIENCE = 180.0
_SICK = 25.0  # within this a health check has noticed: the workers' file is too old after 20


class Trial:
    """One play of the file. Each check prints a line; a wrong one ends everything."""

    def __init__(self, stack: Stack, password: str) -> None:
        self._stack = stack
        home = stack.work / "home"
        home.mkdir(exist_ok=True)
        self._environment = {  # as the head of docker-compose.yml tells people who are not in a container
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(home),
            "HOLDFAST_HOME": str(home / ".holdfast"),
            "TEMPORAL_ADDRESS": "127.0.0.1:7233",
            "HOLDFAST_DATABASE_URL": f"postgresql://holdfast_owner:{password}@127.0.0.1:5432/holdfast",
            "HOLDFAST_QDRANT_URL": "http://127.0.0.1:6333",
            "HOLDFAST_QDRANT_API_KEY": password,
        }

    async def all(self) -> int:
        """Do everything; return the exit code."""
        stack = self._stack
        stack.addresses()
        try:
            print("up, on empty volumes")
            await stack.up()
            await stack.publish()
            await self._run_to_end()
            waiting = (await self._cli("run", "support", _REFUND, "--thread", "c-42", "--detach"))[-1]["run_id"]
            await self._until(waiting, "waiting")
            self._say("an approval waits")
            for name in ("workers", "qdrant", "temporal-ui", "temporal", "postgres"):
                await self._kill(name)
            await self._until(waiting, "waiting")
            self._say("it still waits, after every server was killed")
            await self._power_cut()
            await self._until(waiting, "waiting")
            self._say("and after all were killed at once, and came back in no order")
            await self._cli("approve", waiting)
            self._refunded(await self._until(waiting, "done"), "approved from outside")
            await self._web_ui()
            print("down, and up with new containers on the old volumes")
            await stack.down()
            stack.forget()
            await stack.up()
            await self._until(waiting, "done")
            self._say("the run of before is there")
            await self._run_to_end()
        except Wrong as exc:
            print(f"  ✗ {exc}")
            return 1
        finally:
            await stack.down()
        print("all of it was as the file says")
        return 0

    def _say(self, what: str) -> None:
        print(f"  ✓ {what}", flush=True)

    async def _run_to_end(self) -> None:
        began = time.monotonic()
        lines = await self._cli("run", "support", "Where is order 17?")
        if "delivered damaged" not in str(lines[-1]):
            raise Wrong(f"the run did not end as it should: {lines[-1]}")
        self._say(f"a run with a tool, from outside, in {time.monotonic() - began:.1f} s")

    async def _kill(self, name: str) -> None:
        """Kill a service; its check must fail while it is down and pass once it was started again."""
        stack = self._stack
        health = stack.services[name].health
        assert health is not None
        before = [container.starts for container in stack.containers if container.service.name == name]
        stack.free[name] = asyncio.Event()
        hit = stack.kill(name)
        await asyncio.gather(*(container.process.wait() for container in hit if container.process is not None))
        deadline = time.monotonic() + _SICK
        while any([await stack.check(container) for container in hit]):
            if time.monotonic() > deadline:
                raise Wrong(f"the health check of {name} passes although it is dead")
            await asyncio.sleep(1)
        stack.free[name].set()
        began = time.monotonic()
        for container in hit:
            await stack.healthy(container)
        starts = [container.starts - one for container, one in zip(hit, before, strict=True)]
        self._say(f"{name} killed: unhealthy, {max(starts)} start(s), healthy after {time.monotonic() - began:.1f} s")

    async def _power_cut(self) -> None:
        """Kill everything at once; an engine that starts again starts all of it at once too, and asks for no order."""
        stack, names = self._stack, [name for name, service in self._stack.services.items() if service.health]
        for name in names:
            stack.free[name] = asyncio.Event()
        hit = [container for name in names for container in stack.kill(name)]
        await asyncio.gather(*(container.process.wait() for container in hit if container.process is not None))
        for name in names:
            stack.free[name].set()
        began = time.monotonic()
        await asyncio.gather(*(stack.healthy(container) for container in hit))
        self._say(f"all healthy again {time.monotonic() - began:.1f} s after a power cut")

    def _refunded(self, shown: dict[str, Any], how: str) -> None:
        refunds = [step["state"] for step in shown["steps_taken"] if step["tool"] == "refund"]
        if refunds != ["done"]:
            raise Wrong(f"the refund is {refunds}, not done once")
        self._say(f"{how}, the refund was made once")

    async def _web_ui(self) -> None:
        """Look at the Web UI: the page, its way to Temporal, and a signal as a person's browser sends it."""
        base, jar = "http://127.0.0.1:8233", str(self._stack.work / "home" / "cookies")
        page = await self._out("curl", "-fsS", "-o", "/dev/null", "-c", jar, "-w", "%{http_code}", base + "/")
        api = base + "/api/v1/namespaces/default/workflows"
        listed = json.loads(await self._out("curl", "-fsS", api))
        self._say(f"the Web UI answers ({page.strip()}) and lists {len(listed['executions'])} workflows")
        run = (await self._cli("run", "support", _REFUND, "--thread", "c-43", "--detach"))[-1]["run_id"]
        await self._until(run, "waiting")
        token = (await self._out("cat", jar)).split()[-1]
        encoding, data = (base64.b64encode(text).decode() for text in (b"json/plain", b'{"approve": true}'))
        signal = json.dumps({"input": {"payloads": [{"metadata": {"encoding": encoding}, "data": data}]}})
        sent = ("-H", f"X-CSRF-Token: {token}", "-H", f"Origin: {base}", "-H", "Content-Type: application/json")
        await self._out("curl", "-fsS", "-b", jar, *sent, "-d", signal, f"{api}/default:c-43/signal/decide")
        self._refunded(await self._until(run, "done"), "approved in the Web UI")

    async def _until(self, run: str, state: str) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE
        shown: dict[str, Any] = {}
        while time.monotonic() < deadline:
            shown = (await self._cli("show", run))[0]
            if shown["state"] == state:
                return shown
            await asyncio.sleep(0.5)
        raise Wrong(f"run {run} is {shown.get('state')}, not {state}")

    async def _cli(self, *args: str) -> list[dict[str, Any]]:
        said = await self._out("holdfast", *args, "--json")
        return [json.loads(line) for line in said.splitlines() if line.startswith("{")]

    async def _out(self, program: str, *args: str) -> str:
        found = shutil.which(program, path=self._environment["PATH"]) or program
        process = await asyncio.create_subprocess_exec(
            found, *args, env=self._environment, cwd=self._environment["HOME"], stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        said = (await asyncio.wait_for(process.communicate(), _PATIENCE))[0].decode()
        if process.returncode:
            raise Wrong(f"{program} {' '.join(args)} ended with {process.returncode}: {said[-500:]}")
        return said

"""Loads an agents file in a process of its own, as a worker would, and says what came of it. The reloader runs it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import HoldfastError
from holdfast.settings import Settings, load_settings

__all__ = ["Verdict", "main", "try_agents"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a trial found: the names of the agents, or why there are none."""

    agents: tuple[str, ...] = ()
    error: str | None = None


def _load(settings: Settings) -> Verdict:
    from holdfast.llm.prices import require_prices
    from holdfast.llm.resolve import model_for
    from holdfast.plugins.equip import check_secrets
    from holdfast.plugins.load import find_plugins
    from holdfast.secrets import Secrets
    from holdfast.tools.registry import load_agents

    try:
        agents = load_agents(settings.agents)
        found = find_plugins(settings, agents.plugins)
        if not any("secret" in each.hooks for each in found):  # a store answers only where it was started
            asyncio.run(check_secrets(agents.values(), Secrets()))
        for agent in agents.values():
            model_for(agent.definition, settings)
        require_prices({agent.name: agent.definition for agent in agents.values()}, settings)
    except HoldfastError as exc:
        return Verdict(error=str(exc))
    return Verdict(tuple(sorted(agents)))


def main(argv: list[str] | None = None) -> int:
    """Run `python -m holdfast.server.trial REPORT`: the agents file of the settings is loaded, REPORT gets the verdict.

    The report is a file, because the user's own code may write to standard output.
    """
    (report,) = sys.argv[1:] if argv is None else argv
    verdict = _load(load_settings())
    Path(report).write_text(json.dumps({"agents": verdict.agents, "error": verdict.error}), encoding="utf-8")
    return 0


async def try_agents(environment: Mapping[str, str], *, timeout: float) -> Verdict:
    """Load the agents file under a worker's *environment*; a file that does not load within *timeout* seconds is bad.

    Nothing of it stays: the process, and whatever it started, is gone when this returns.
    """
    with tempfile.TemporaryDirectory(prefix="holdfast-trial-") as folder:
        report = Path(folder) / "report.json"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "holdfast.server.trial", str(report)),
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        said = b""
        try:
            async with asyncio.timeout(timeout):
                said, _ = await process.communicate()
        except TimeoutError:
            return Verdict(error=f"the agents file was not loaded within {timeout:.0f} s: does it wait for something?")
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        try:
            found = json.loads(report.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            tail = "\n".join(said.decode(errors="replace").splitlines()[-15:])
            return Verdict(error=f"loading the agents file ended the process ({process.returncode}):\n{tail}")
    return Verdict(tuple(found["agents"]), found["error"])


if __name__ == "__main__":
    # A user's thread that hangs must not keep it.
    code = main()
    sys.stdout.flush()
    os._exit(code)

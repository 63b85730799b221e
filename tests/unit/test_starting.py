"""What is told while something is not there: a stack that starts, an MCP server that is away, a standard output."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast import Client
from holdfast.errors import StackNotRunning
from holdfast.mcp.away import away, tell_away
from holdfast.server import doctor, now_starting
from holdfast.server.lock import folder_lock
from holdfast.server.starting import tell_start
from holdfast.settings import Settings


def _stack(settings: Settings) -> str:
    return next(check.detail for check in doctor(settings) if check.name == "stack")


async def test_who_comes_while_a_stack_starts_is_told(tmp_path: Path) -> None:
    """Doctor and client say what takes long, for as long as somebody starts it, and not a moment longer."""
    settings = Settings(home=tmp_path)
    assert now_starting(tmp_path) is None
    with folder_lock(tmp_path):
        assert now_starting(tmp_path) is None, "it stops, or has not begun"
        tell_start(tmp_path, "")
        assert now_starting(tmp_path) == ""
        tell_start(tmp_path, "building the server")
        assert _stack(settings).endswith(": building the server")
        with pytest.raises(StackNotRunning, match=r"being started \(building the server\)\. Try again"):
            await Client.connect(settings)
    assert now_starting(tmp_path) is None, "whoever wrote it is gone"
    assert _stack(settings) == "none runs in this folder"
    tell_start(tmp_path, None)
    tell_start(tmp_path, None)


def test_a_server_that_is_away_is_known_with_its_reason(tmp_path: Path) -> None:
    """As long as the worker that says so lives; nothing fails where there is no folder of a stack."""
    tell_away(tmp_path, "clock", "no such program")
    assert away(tmp_path) == {}
    (tmp_path / "run").mkdir()
    tell_away(tmp_path, "clock", "no such program")
    assert away(tmp_path) == {"clock": "no such program"}
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / "run/mcp-away-files-1.json").write_text(json.dumps({"server": "files", "pid": gone.pid, "why": "x"}))
    (tmp_path / "run/mcp-away-odd-2.json").write_text("[]")
    assert away(tmp_path) == {"clock": "no such program"}
    tell_away(tmp_path, "clock", None)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_command_without_standard_output_ends_in_order(tmp_path: Path) -> None:
    """`holdfast runs >&-` has nobody to tell, and no traceback."""
    line = f"cd {tmp_path}; {sys.executable} -c 'from holdfast.cli import main; main()' doctor"
    for closed in (">&-", ">&- 2>&-"):
        done = subprocess.run(["sh", "-c", f"{line} {closed}"], capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), closed

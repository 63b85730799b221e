"""A stack that is still starting can be stopped: nobody should have to wait for what he no longer wants."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from holdfast.server import stop_stack
from holdfast.server.home import lock_holder
from tests.kit import until

SERVER = (sys.executable, str(Path(__file__).with_name("_stack_server.py")))


async def test_down_stops_a_stack_that_has_not_said_yet_where_it_is(tmp_path: Path) -> None:
    """From the moment its supervisor holds the folder's lock, the stack can be found and stopped."""
    home = tmp_path / "home"
    agents = tmp_path / "agents.py"
    agents.write_text("", encoding="utf-8")
    environment = {**os.environ, "HOLDFAST_HOME": str(home), "HOLDFAST_AGENTS": str(agents)}
    process = subprocess.Popen(  # noqa: ASYNC220  # starting it takes milliseconds
        [*SERVER, "dev"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        assert await until(lambda: lock_holder(home), "the supervisor holds the lock") == process.pid
        assert stop_stack(home)
        assert process.wait(timeout=20) is not None
        assert not (home / "stack.json").exists()
        assert not stop_stack(home)
    finally:
        process.kill()
        process.wait()

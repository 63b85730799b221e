"""The parts of a campaign besides its drives find in the suite's files what they need."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.conformance.subject import AGENTS


def test_the_agents_file_loads_without_mcp_servers() -> None:
    """Runs that wait for a person are played without them: only the recorder's address is given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CONFORMANCE_")}
    environment = {**clean, "CONFORMANCE_RECORDER": "http://127.0.0.1:9"}
    played = subprocess.run(
        [sys.executable, str(AGENTS)], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert played.returncode == 0, played.stderr[-2000:]

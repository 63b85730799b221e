"""The long-term memory in process: what a kill, a second process or a damaged folder do to it."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from holdfast.errors import StorageError
from holdfast.memory.longterm import MemoryRecord
from holdfast.memory.qdrant_edge import QdrantEdgeMemory

ROOT = Path(__file__).parents[2]


def record(key: str, text: str) -> MemoryRecord:
    """Return a record whose place of origin is *key*."""
    return MemoryRecord(tenant="acme", text=text, thread="t", run_id="r", at=datetime.now(UTC), source_key=key)


WRITER = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from holdfast.memory.longterm import MemoryRecord
from holdfast.memory.qdrant_edge import QdrantEdgeMemory

async def main(folder, first):
    memory = QdrantEdgeMemory(Path(folder))
    await memory.open()
    for n in range(int(first), int(first) + 100_000):
        records = [
            MemoryRecord(tenant="acme", text=f"fact {n} part {part}", thread="t", run_id="r",
                         at=datetime.now(UTC), source_key=f"{n}/{part}")
            for part in range(3)
        ]
        await memory.remember(records)
        print(n, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""
OPENER = """
import asyncio, sys
from pathlib import Path
from holdfast.errors import StorageError
from holdfast.memory.qdrant_edge import QdrantEdgeMemory

try:
    asyncio.run(QdrantEdgeMemory(Path(sys.argv[1])).open())
except StorageError as exc:
    print(exc)
    sys.exit(3)
"""


def _write_and_kill(folder: Path, first: int, generator: random.Random) -> list[int]:
    """Start a writer, kill it at a random moment of a write, return the numbers that it acknowledged."""
    command = [sys.executable, "-c", WRITER, str(folder), str(first)]
    writer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    with writer.stdout as out:
        try:
            acknowledged = [int(out.readline()) for _ in range(generator.randrange(1, 40))]
            with pytest.raises(subprocess.TimeoutExpired):  # a write takes some milliseconds: be anywhere within
                writer.wait(generator.uniform(0, 0.02))
        finally:
            writer.kill()
        acknowledged += [int(line) for line in out.read().splitlines(keepends=True) if line.endswith("\n")]
    assert writer.wait(10) == -9
    return acknowledged


async def test_kill_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Five writers in turn die by kill -9 at random moments: each record they acknowledged is there and found."""
    seed = random.SystemRandom().randrange(10**6)
    generator = random.Random(seed)
    folder = tmp_path / "memory"
    acknowledged: list[int] = []
    for _ in range(5):
        acknowledged += await asyncio.to_thread(_write_and_kill, folder, len(acknowledged), generator)
    assert acknowledged == list(range(len(acknowledged)))
    memory = QdrantEdgeMemory(folder)
    await memory.open()
    # A write under way at a kill may have happened or not; the next writer writes the same keys again.
    assert 0 <= await memory.count("acme") - 3 * len(acknowledged) <= 3, f"seed {seed}"
    found = {hit.text for hit in await memory.search("acme", "fact", 3 * len(acknowledged) + 3)}
    assert {f"fact {n} part {part}" for n in acknowledged for part in range(3)} <= found, f"seed {seed}"
    await memory.close()


async def test_second_process_is_refused(tmp_path: Path) -> None:
    """A second opener is told who holds the folder and what to do, and the first one goes on working."""
    folder = tmp_path / "memory"
    memory = QdrantEdgeMemory(folder)
    await memory.open()
    await memory.remember([record("k1", "before the intruder")])
    for _ in range(2):
        intruder = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", OPENER, str(folder)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert intruder.returncode == 3, intruder.stderr
        assert f"process {os.getpid()}" in intruder.stdout
        assert "holdfast down" in intruder.stdout
    with pytest.raises(StorageError, match="in use"):
        await QdrantEdgeMemory(folder).open()
    await memory.remember([record("k2", "after the intruder")])
    assert await memory.count("acme") == 2
    await memory.close()
    await memory.open()
    assert await memory.count("acme") == 2
    await memory.close()


async def test_damaged_folder(tmp_path: Path) -> None:
    """Data that cannot be read is said so and left alone, and the folder is not held afterwards."""
    folder = tmp_path / "memory"
    memory = QdrantEdgeMemory(folder)
    await memory.open()
    await memory.remember([record("k1", "x")])
    await memory.close()
    config = folder / "shard" / "edge_config.json"
    original = config.read_bytes()
    config.write_bytes(b"{")
    for _ in range(2):
        with pytest.raises(StorageError, match="could not be opened"):
            await memory.open()
    config.write_bytes(original)
    await memory.open()
    assert await memory.count("acme") == 1
    await memory.close()


async def test_half_made_shard_is_made_again(tmp_path: Path) -> None:
    """A kill while the shard was being made leaves a draft that the next opener throws away."""
    draft = tmp_path / "memory" / "shard.new" / "segments"
    draft.mkdir(parents=True)
    (draft / "half").write_bytes(b"\0")
    memory = QdrantEdgeMemory(tmp_path / "memory")
    await memory.open()
    await memory.remember([record("k1", "x")])
    await memory.close()
    assert not draft.parent.exists()

"""What a process shows of a server that is away: nothing but the errors of those who asked it something."""

from __future__ import annotations

import logging

import pytest

from holdfast.contracts import ThreadState
from holdfast.errors import StackError
from holdfast.memory.database import UNAVAILABLE, open_pool
from holdfast.wire import Wire
from tests.conformance.proxy import FaultProxy
from tests.conftest import MakeWorld
from tests.kit import until


class Spy(logging.Filter):
    """Hears what a logger is told, and lets all of it pass."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Take note."""
        self.heard.append(str(record.msg))
        return True


async def test_a_pool_without_its_database_prints_no_tracebacks(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """The driver tries by itself to keep a connection open, and each try that fails was a page in a user's terminal."""
    world = await make_world("")
    proxy = FaultProxy(world.settings.database_url or "")
    await proxy.open()
    pool = await open_pool(proxy.url, size=2, name="test")
    spy, logger = Spy(), logging.getLogger("asyncpg.pool")
    logger.filters.insert(0, spy)
    try:
        await proxy.shut()
        await until(lambda: spy.heard, "the driver has tried by itself")
        with pytest.raises(UNAVAILABLE):
            await pool.acquire(timeout=1.0)
        assert not [record for record in caplog.records if record.name.startswith("asyncpg")]
    finally:
        logger.removeFilter(spy)
        pool.terminate()


async def test_a_client_without_temporal_leaves_standard_output_alone(
    make_world: MakeWorld, capfd: pytest.CaptureFixture[str]
) -> None:
    """The SDK's own words on its retries would land there, amid an answer or the JSON that a program reads."""
    world = await make_world("", client_patience=5.0)
    proxy = FaultProxy(f"tcp://{world.settings.temporal_address}")
    await proxy.open()
    wire = await Wire.open(world.settings.model_copy(update={"temporal_address": proxy.address}))
    await proxy.shut()
    with pytest.raises(StackError):
        await wire.query(f"{world.settings.tenant}:t", "state", ThreadState)
    shown = capfd.readouterr()
    assert "temporalio" not in shown.out + shown.err

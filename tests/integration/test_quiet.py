"""What a process shows of a server that is away: nothing but the errors of those who asked it something."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys

import pytest

from holdfast.contracts import ThreadState
from holdfast.convert import quiet_runtime
from holdfast.errors import StackError
from holdfast.memory.database import UNAVAILABLE, open_pool
from holdfast.wire import Wire
from tests.conformance.proxy import FaultProxy
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, until


class Spy(logging.Filter):
    """Hears what a logger is told, and lets all of it pass."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Take note."""
        self.heard.append(str(record.msg))
        return True


@pytest.mark.parametrize("silenced", [True, False], ids=["as the product does", "control: without its filter"])
async def test_a_pool_without_its_database_prints_no_tracebacks(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture, silenced: bool
) -> None:
    """The driver tries by itself to keep a connection open, and each try that fails was a page in a user's terminal."""
    world = await make_world("")
    proxy = FaultProxy(world.settings.database_url or "")
    await proxy.open()
    pool = await open_pool(proxy.url, size=2, name="test")
    spy, logger = Spy(), logging.getLogger("asyncpg.pool")
    filters = list(logger.filters)
    logger.filters[:] = [spy, *(filters if silenced else [])]
    try:
        await proxy.shut()
        await until(lambda: spy.heard, "the driver has tried by itself")
        with pytest.raises(UNAVAILABLE):
            await pool.acquire(timeout=1.0)
        seen = [record for record in caplog.records if record.name.startswith("asyncpg")]
        assert bool(seen) is not silenced
        assert silenced or any(record.exc_info for record in seen), "the driver writes no traceback"
    finally:
        logger.filters[:] = filters
        pool.terminate()


# In a process of its own, since the SDK has one runtime for each. It asks a server that has just gone.
_ASKS = """
import asyncio, socket, sys
from datetime import timedelta
from temporalio.client import Client
from holdfast.convert import quiet_runtime

async def main():
    given = {"runtime": quiet_runtime()} if sys.argv[2] == "quiet" else {}
    client = await Client.connect(sys.argv[1], **given)
    print("connected", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    try:
        await client.get_workflow_handle("none").query("state", rpc_timeout=timedelta(seconds=5))
    except Exception as exc:
        print("refused", type(exc).__name__, file=sys.stderr)

asyncio.run(main())
"""


@pytest.mark.parametrize("runtime", ["quiet", "loud"], ids=["as the product does", "control: as the SDK does"])
async def test_a_client_without_temporal_leaves_standard_output_alone(make_world: MakeWorld, runtime: str) -> None:
    """The SDK's own words on its retries would land there, amid an answer or the JSON that a program reads."""
    world = await make_world("")
    proxy = FaultProxy(f"tcp://{world.settings.temporal_address}")
    await proxy.open()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _ASKS, proxy.address, runtime),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"connected\n"
    await proxy.shut()
    out, err = await asyncio.wait_for(process.communicate(b"go\n"), PATIENCE)
    assert b"refused" in err, "the server was not missed"
    assert (b"temporalio" in out + err) is (runtime == "loud")


async def test_the_client_of_the_product_uses_the_quiet_runtime(make_world: MakeWorld) -> None:
    """What the test before shows of the runtime holds for whoever connects by `Client`."""
    world = await make_world("", client_patience=5.0)
    proxy = FaultProxy(f"tcp://{world.settings.temporal_address}")
    await proxy.open()
    wire = await Wire.open(world.settings.model_copy(update={"temporal_address": proxy.address}))
    await proxy.shut()
    assert wire.temporal.service_client.config.runtime is quiet_runtime()
    with pytest.raises(StackError):
        await wire.query(f"{world.settings.tenant}:t", "state", ThreadState)

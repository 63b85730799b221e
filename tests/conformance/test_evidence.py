"""What is written down for the auditor is written down whatever happens to the programs that find it out."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from tests.conformance.evidence import replayed


class _Waits:
    """A replayer that waits for ever at one history, the first so many times."""

    def __init__(self, at: str, times: int) -> None:
        self._at, self._left = at, Counter({at: times})

    @asynccontextmanager
    async def workflow_replay_iterator(
        self, histories: AsyncIterator[WorkflowHistory]
    ) -> AsyncIterator[AsyncIterator[SimpleNamespace]]:
        async def results() -> AsyncIterator[SimpleNamespace]:
            async for history in histories:
                if self._left[history.workflow_id] > 0:
                    self._left[history.workflow_id] -= 1
                    await asyncio.Event().wait()
                yield SimpleNamespace(replay_failure=None)

        yield results()


@pytest.mark.parametrize(("times", "error"), [(0, None), (1, None), (2, "its replay did not end within 0 s, twice")])
async def test_a_replayer_that_waits_for_ever_begins_anew(times: int, error: str | None) -> None:
    """Each history has one result, in its place; only one that hangs twice did not replay, and hangs are counted."""
    histories = [WorkflowHistory(name, []) for name in ("a", "b", "c")]
    replayer = cast("Replayer", _Waits("b", times))
    found = [(history.workflow_id, *rest) async for history, *rest in replayed(replayer, histories, patience=0.2)]
    assert found == [("a", None, 0), ("b", error, times), ("c", None, 0)]

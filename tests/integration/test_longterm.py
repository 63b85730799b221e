"""The long-term memory: one suite over the engine in process and over the server's adapter."""

from __future__ import annotations

import asyncio
import random
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError
from qdrant_client import AsyncQdrantClient

from holdfast.errors import StorageError
from holdfast.memory.longterm import LongTermMemory, MemoryRecord, point_id
from holdfast.memory.qdrant_edge import QdrantEdgeMemory
from holdfast.memory.qdrant_server import QdrantServerMemory

# qdrant-client's local mode says that it ignores the indexes a server would build.
pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
SUBJECTS = ["invoice", "garden", "violin", "harbour", "recipe", "glacier", "contract", "bicycle", "lantern", "museum"]
VERBS = ["was repaired", "needs a signature", "opens at nine", "cost forty euros", "is closed for winter"]

Factory = Callable[[], LongTermMemory]


def record(key: str, text: str, *, tenant: str = "acme", thread: str = "t1", run_id: str = "r1") -> MemoryRecord:
    """Return a record whose place of origin is *key*."""
    return MemoryRecord(tenant=tenant, text=text, thread=thread, run_id=run_id, at=AT, source_key=key)


@pytest.fixture(params=["edge", "server"])
async def factory(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Factory]:
    """Make adapters that share one store, each closed by whoever opened it."""
    if request.param == "edge":
        yield lambda: QdrantEdgeMemory(tmp_path / "memory")
        return
    client = AsyncQdrantClient(":memory:")
    yield lambda: QdrantServerMemory("http://in-process", client=client)
    await client.close()


@pytest.fixture
async def memory(factory: Factory) -> AsyncIterator[LongTermMemory]:
    """Open an empty memory."""
    opened = factory()
    await opened.open()
    yield opened
    await opened.close()


async def test_empty_store(memory: LongTermMemory) -> None:
    """Nothing is found, counted or forgotten where nothing is."""
    assert await memory.search("acme", "anything", 5) == []
    assert await memory.count("acme") == 0
    assert await memory.forget("acme") == 0
    await memory.remember([])


async def test_remember_and_find(memory: LongTermMemory) -> None:
    """What was remembered comes back whole."""
    await memory.remember([record("k1", "The customer prefers tea.", thread="t7", run_id="r9")])
    [hit] = await memory.search("acme", "which drink does the customer like?", 5)
    assert hit.id == point_id("k1") == str(uuid.UUID(hit.id))
    assert (hit.text, hit.thread, hit.run_id, hit.at) == ("The customer prefers tea.", "t7", "r9", AT)
    assert 0 < hit.score <= 1


async def test_upsert_is_idempotent(memory: LongTermMemory) -> None:
    """Writing a key again, also within one call, leaves one point with the last text."""
    await memory.remember([record("k1", "first"), record("k2", "other")])
    await memory.remember([record("k1", "second"), record("k1", "third")])
    await asyncio.gather(*(memory.remember([record("k1", "third")]) for _ in range(10)))
    assert await memory.count("acme") == 2
    assert {hit.text for hit in await memory.search("acme", "third", 10)} == {"third", "other"}


async def test_tenants_are_apart(memory: LongTermMemory) -> None:
    """No tenant finds, counts or forgets what is another's, nor learns of it by the ranking."""
    await memory.remember([record(f"a{n}", f"acme secret {n}") for n in range(20)])
    await memory.remember([record("g1", "globex lunch plan", tenant="globex")])
    before = await memory.search("globex", "secret lunch", 50)
    assert [hit.text for hit in before] == ["globex lunch plan"]
    assert await memory.search("nobody", "secret", 5) == []
    await memory.remember([record(f"l{n}", f"acme lunch {n}") for n in range(50)])
    assert await memory.search("globex", "secret lunch", 50) == before
    assert await memory.forget("globex") == 1
    assert (await memory.count("acme"), await memory.count("globex")) == (70, 0)


async def test_foreign_key_is_refused(memory: LongTermMemory) -> None:
    """A source key of another tenant overwrites nothing."""
    await memory.remember([record("k1", "mine")])
    with pytest.raises(StorageError, match="another tenant"):
        await memory.remember([record("k2", "fine"), record("k1", "stolen", tenant="globex")])
    with pytest.raises(StorageError, match="another tenant"):
        await memory.remember([record("k3", "one"), record("k3", "two", tenant="globex")])
    assert await memory.count("globex") == 0
    assert [hit.text for hit in await memory.search("acme", "mine", 5)] == ["mine"]


async def test_ranking_among_two_hundred(memory: LongTermMemory) -> None:
    """By meaning, by a rare word and by a number, the right one of 200 texts comes first."""
    notes = [f"The {SUBJECTS[n % 10]} {VERBS[n // 10 % 5]}, note {n}." for n in range(197)]
    notes += [
        "Ada asked for her parcel to be left with the neighbour.",
        "Ticket ZX-48213 concerns the login page.",
        "The Kubernetes cluster ran out of disk space on Friday.",
    ]
    await memory.remember([record(f"n{n}", note) for n, note in enumerate(notes)])
    assert await memory.count("acme") == 200
    for question, expected in [
        ("where should the package be delivered for Ada", notes[197]),
        ("ticket ZX-48213", notes[198]),
        ("server storage full", notes[199]),
    ]:
        hits = await memory.search("acme", question, 5)
        assert hits[0].text == expected, question
        assert len(hits) == 5
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert notes[42] in [hit.text for hit in await memory.search("acme", "violin note 42", 5)]


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("東京の天気は晴れです", "東京の天気"),
        ("Заказ номер 17 доставлен", "Заказ"),
        ("naïve café — ﬁancée 😀", "cafe 😀"),
        ("nul \x00 and \u2028 separators", "separators"),
        ("half \ud800 a pair", "pair \udfff"),
    ],
)
async def test_unicode(memory: LongTermMemory, text: str, question: str) -> None:
    """Any script goes in and comes out; only half a surrogate pair becomes a question mark."""
    await memory.remember([record("k1", text), record("k2", "something else entirely")])
    hits = await memory.search("acme", question, 2)
    assert hits[0].text == text.replace("\ud800", "?")


async def test_blank_texts(memory: LongTermMemory) -> None:
    """A text without words can be kept and forgotten; a blank question and no room for hits find nothing."""
    await memory.remember([record("k1", ""), record("k2", " \n"), record("k3", "!!!"), record("k4", "words")])
    assert await memory.count("acme") == 4
    assert await memory.search("acme", "  ", 5) == []
    assert await memory.search("acme", "words", 0) == []
    assert [hit.text for hit in await memory.search("acme", "words", 1)] == ["words"]


async def test_long_texts(memory: LongTermMemory) -> None:
    """A 100 KB text comes back whole, found by one word of it, and can be the question too."""
    generator = random.Random(7)
    words = [f"{generator.choice(SUBJECTS)}{generator.randrange(500)}" for _ in range(10_000)]
    text = " ".join([*words, "quetzalcoatl"])
    assert len(text) > 90_000
    await memory.remember([record("long", text), *(record(f"k{n}", f"short note {n}") for n in range(20))])
    assert (await memory.search("acme", "quetzalcoatl", 1))[0].text == text
    assert (await memory.search("acme", text, 1))[0].text == text


async def test_thread_filter_and_forget(memory: LongTermMemory) -> None:
    """Search and forget can be bound to a thread or a run; forgetting tells how many there were."""
    await memory.remember(
        [
            record("k1", "blue car", thread="t1", run_id="r1"),
            record("k2", "blue boat", thread="t1", run_id="r2"),
            record("k3", "blue sky", thread="t2", run_id="r3"),
            record("k4", "blue ink", thread="t1", run_id="r1", tenant="globex"),
        ]
    )
    assert {hit.text for hit in await memory.search("acme", "blue", 9, thread="t1")} == {"blue car", "blue boat"}
    assert await memory.forget("acme", thread="t2", run_id="r1") == 0
    assert await memory.forget("acme", thread="t1", run_id="r2") == 1
    assert await memory.forget("acme", run_id="r1") == 1
    assert {hit.text for hit in await memory.search("acme", "blue", 9)} == {"blue sky"}
    await memory.remember([record("k1", "blue car again")])
    assert await memory.forget("acme") == 2
    assert (await memory.count("acme"), await memory.count("globex")) == (0, 1)


async def test_many_at_once(memory: LongTermMemory) -> None:
    """Concurrent writers and readers do not disturb each other, and a cancelled caller disturbs nobody."""
    writes = [memory.remember([record(f"k{n}", f"note {n} of many")]) for n in range(60)]
    reads = [memory.search("acme", "note of many", 3) for _ in range(20)]
    cancelled = asyncio.ensure_future(memory.remember([record("gone", "cancelled")]))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(*writes, *reads)
    assert await memory.count("acme") in (60, 61)


async def test_reopen(factory: Factory) -> None:
    """Everything is there after closing and opening; both may be asked for twice."""
    first = factory()
    await first.open()
    await first.open()
    await first.remember([record("k1", "kept over a restart"), record("k2", "forgotten", thread="t2")])
    assert await first.forget("acme", thread="t2") == 1
    await first.close()
    await first.close()
    with pytest.raises(StorageError, match=r"is not open|is not available"):
        await first.count("acme")
    with pytest.raises(StorageError, match=r"is not open|is not available"):
        await first.remember([record("k3", "too late")])
    for again in (first, factory()):
        await again.open()
        assert [hit.text for hit in await again.search("acme", "restart", 5)] == ["kept over a restart"]
        await again.close()


async def test_another_embedding_model_is_refused(factory: Factory) -> None:
    """A store made for vectors of one length is not opened for another, and stays as it was."""

    class Other:
        dimensions = 8

        def embed(self, texts: list[str]) -> object:
            raise AssertionError("nothing is embedded before the store is open")

    first = factory()
    await first.open()
    await first.remember([record("k1", "still here")])
    await first.close()
    other = factory()
    other._embedder = Other()  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match="embedding model"):
        await other.open()
    await first.open()
    assert await first.count("acme") == 1
    await first.close()


def test_records_are_validated() -> None:
    """An id is derived, a naive time, an empty tenant or a bad id refused."""
    assert record("k1", "x").id == point_id("k1") != point_id("k2")
    given = str(uuid.uuid4())
    fields = {"tenant": "a", "text": "x", "thread": "t", "run_id": "r", "at": AT, "source_key": "k"}
    assert MemoryRecord.model_validate({**fields, "id": given}).id == given
    for wrong in ({"tenant": ""}, {"source_key": ""}, {"id": "no uuid"}, {"at": datetime(2026, 1, 1)}):
        with pytest.raises(ValidationError):
            MemoryRecord.model_validate({**fields, **wrong})


# The server's adapter


async def test_several_open_one_server(tmp_path: Path) -> None:
    """Processes that start together on an empty server all get the one collection."""
    client = AsyncQdrantClient(":memory:")
    adapters = [QdrantServerMemory("http://in-process", client=client) for _ in range(8)]
    await asyncio.gather(*(adapter.open() for adapter in adapters))
    await adapters[0].remember([record("k1", "shared")])
    assert [await adapter.count("acme") for adapter in adapters] == [1] * 8
    await client.close()


async def test_server_that_is_not_there() -> None:
    """No server behind the URL is said so, with the setting to mend."""
    with socket.socket() as held:  # bound, not listening: connections are refused
        held.bind(("127.0.0.1", 0))
        memory = QdrantServerMemory(f"http://127.0.0.1:{held.getsockname()[1]}", timeout=2)
        with pytest.raises(StorageError, match="HOLDFAST_QDRANT_URL"):
            await memory.open()
    with pytest.raises(StorageError, match=r"is not open|is not available"):
        await memory.count("acme")

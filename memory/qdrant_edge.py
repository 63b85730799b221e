"""Long-term memory in process: the Qdrant engine over a folder. The memory process of the embedded stack owns it.

The engine takes one process and one caller at a time, and a second opener that it refuses still breaks the first
one's next flush. So all calls go through one thread, and a file lock of our own is taken before the engine looks.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import qdrant_edge as engine

from holdfast.contracts import MemoryHit
from holdfast.errors import HoldfastError, StorageError
from holdfast.memory.embeddings import Embedder, WordLlamaEmbedder
from holdfast.memory.longterm import (
    DENSE,
    KEYWORDS,
    RRF_K,
    SPARSE,
    EncodedQuery,
    EncodedRecord,
    MemoryRecord,
    candidates,
    encode_query,
    encode_records,
    refuse_foreign,
    to_hit,
)

__all__ = ["QdrantEdgeMemory"]

T = TypeVar("T")


class QdrantEdgeMemory:
    """`LongTermMemory` in *folder* (created if missing), for one process at a time."""

    def __init__(self, folder: Path, *, embedder: Embedder | None = None) -> None:
        self._folder = folder
        self._embedder = embedder or WordLlamaEmbedder()
        self._thread: ThreadPoolExecutor | None = None
        self._shard: engine.EdgeShard | None = None
        self._lock: int | None = None

    async def open(self) -> None:
        """Take the folder's lock, then open or create the shard.

        Raises:
            StorageError: another process holds the folder (nothing was touched), or its data cannot be read.

        """
        if self._thread is not None:
            return
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="holdfast-memory")
        try:
            await self._run(self._open)
        except BaseException:
            await self.close()
            raise

    async def remember(self, records: list[MemoryRecord]) -> None:
        """Store *records*, flushed to disk; see `LongTermMemory.remember`."""
        if not records:
            return
        points = await asyncio.to_thread(encode_records, records, self._embedder)
        await self._run(lambda: self._remember(points))

    async def search(self, tenant: str, text: str, limit: int, *, thread: str | None = None) -> list[MemoryHit]:
        """Return the best hits; see `LongTermMemory.search`. The score is that of the fusion, at most 1."""
        if limit < 1 or not text.strip():
            return []
        query = await asyncio.to_thread(encode_query, text, self._embedder)
        return await self._run(lambda: self._search(query, limit, _where(tenant=tenant, thread=thread)))

    async def count(self, tenant: str) -> int:
        """Return how many memories *tenant* has."""
        return await self._run(lambda: self._opened().count(engine.CountRequest(filter=_where(tenant=tenant))))

    async def forget(self, tenant: str, *, thread: str | None = None, run_id: str | None = None) -> int:
        """Remove memories, flushed to disk; see `LongTermMemory.forget`."""
        return await self._run(lambda: self._forget(_where(tenant=tenant, thread=thread, run_id=run_id)))

    async def close(self) -> None:
        """Finish what is under way, close the shard, give the lock back."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(thread, self._translated, self._close))
        finally:
            thread.shutdown(wait=False)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            raise StorageError(f"The long-term memory in {self._folder} is not open. Call open() first.")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._translated, work)

    def _translated(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except HoldfastError:
            raise
        except BaseException as exc:  # the engine raises bare Exception, and its panics derive from BaseException
            raise StorageError(
                f"The long-term memory in {self._folder} refused an operation: {exc}. "
                "If it goes on, check the disk and restart the stack (`holdfast down`, then `holdfast dev`)."
            ) from exc

    # From here on: in the one thread only.

    def _opened(self) -> engine.EdgeShard:
        if self._shard is None:
            raise StorageError(f"The long-term memory in {self._folder} is not open. Call open() first.")
        return self._shard

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = _take_lock(self._folder)
        place = self._folder / "shard"
        if not place.exists():
            self._create(place)
        try:
            self._shard = engine.EdgeShard.load(str(place), self._config())
        except BaseException as exc:
            raise StorageError(
                f"The long-term memory in {place} could not be opened: {exc}. It was damaged, or made with another "
                "embedding model. Restore a copy, or move that folder away to start with an empty memory."
            ) from exc

    def _create(self, place: Path) -> None:
        """Make the shard beside its place and rename it, so that a kill half way leaves nothing half made."""
        draft = place.with_name("shard.new")
        shutil.rmtree(draft, ignore_errors=True)
        shard = engine.EdgeShard.create(str(draft), self._config())
        for field in KEYWORDS:
            schema = engine.KeywordIndexParams(is_tenant=field == "tenant")
            shard.update(engine.UpdateOperation.create_field_index(field, schema))
        shard.flush()
        shard.close()
        draft.rename(place)

    def _config(self) -> engine.EdgeConfig:
        dense = engine.EdgeVectorParams(size=self._embedder.dimensions, distance=engine.Distance.Cosine)
        return engine.EdgeConfig(
            vectors={DENSE: dense},
            sparse_vectors={SPARSE: engine.EdgeSparseVectorParams(modifier=engine.Modifier.Idf)},
        )

    def _remember(self, points: list[EncodedRecord]) -> None:
        shard = self._opened()
        stored = shard.retrieve([point.record.id for point in points], with_payload=["tenant"], with_vector=False)
        owners = {str(found.id): (found.payload or {}).get("tenant") for found in stored}
        refuse_foreign([point.record for point in points], owners)
        shard.update(engine.UpdateOperation.upsert_points([_to_point(point) for point in points]))
        shard.flush()

    def _search(self, query: EncodedQuery, limit: int, where: engine.Filter) -> list[MemoryHit]:
        branches = []
        if query.dense is not None:
            nearest = engine.Query.Nearest(query.dense, using=DENSE)
            branches.append(engine.Prefetch(limit=candidates(limit), query=nearest, filter=where))
        if query.sparse.indices:
            nearest = engine.Query.Nearest(engine.SparseVector(*query.sparse), using=SPARSE)
            # Word frequencies are counted within the filter: no tenant's ranking tells of another's texts.
            own = engine.SearchParams(idf=engine.IdfParams(corpus=where))
            branches.append(engine.Prefetch(limit=candidates(limit), query=nearest, filter=where, params=own))
        if not branches:
            return []
        fusion: engine.Fusion = engine.Fusion.Rrf(k=RRF_K)  # type: ignore[assignment]  # the stub forgets it is one
        found = self._opened().query(
            engine.QueryRequest(limit=limit, query=fusion, prefetches=branches, filter=where, with_payload=True)
        )
        return [to_hit(point.id, point.score, point.payload) for point in found]

    def _forget(self, where: engine.Filter) -> int:
        shard = self._opened()
        count = shard.count(engine.CountRequest(filter=where))
        if count:
            shard.update(engine.UpdateOperation.delete_points_by_filter(where))
            shard.flush()
        return count

    def _close(self) -> None:
        shard, self._shard = self._shard, None
        lock, self._lock = self._lock, None
        try:
            if shard is not None:
                shard.flush()
                shard.close()
        finally:
            if lock is not None:
                os.close(lock)


def _take_lock(folder: Path) -> int:
    """Return a descriptor that holds the folder; the kernel lets go of it when this process dies, however it dies."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise StorageError(
            f"The long-term memory in {folder} is in use by process {holder or 'unknown'}, and only one may open it. "
            "Use the stack that runs there, stop it with `holdfast down`, or share a Qdrant server: set "
            "HOLDFAST_QDRANT_URL."
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def _where(**fields: str | None) -> engine.Filter:
    return engine.Filter(
        must=[
            engine.FieldCondition(key=key, match=engine.MatchValue(value))
            for key, value in fields.items()
            if value is not None
        ]
    )


def _to_point(point: EncodedRecord) -> engine.Point:
    vectors: dict[str, list[float] | engine.SparseVector | list[list[float]]] = {}
    if point.dense is not None:
        vectors[DENSE] = point.dense
    if point.sparse.indices:
        vectors[SPARSE] = engine.SparseVector(*point.sparse)
    return engine.Point(point.record.id, vectors, point.payload())

"""Long-term memory on a Qdrant server, shared by all workers; the runtime opens it when a Qdrant URL is set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from holdfast.contracts import MemoryHit
from holdfast.errors import MemoryRefused, StorageError
from holdfast.memory.embeddings import Embedder, WordLlamaEmbedder
from holdfast.memory.longterm import (
    DENSE,
    KEYWORDS,
    REFUSALS,
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
from holdfast.secrets import address

__all__ = ["QdrantServerMemory"]

_BATCH_POINTS = 64
_BATCH_CHARS = 4_000_000  # a Qdrant server takes 32 MB a request; JSON and vectors multiply a text's size


class QdrantServerMemory:
    """`LongTermMemory` in one *collection* of the Qdrant server at *url*.

    *timeout* is in seconds, per request. A *client* given here is used instead of *url* and is not closed by `close`.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        collection: str = "holdfast_memory",
        embedder: Embedder | None = None,
        timeout: int = 10,
        client: AsyncQdrantClient | None = None,
    ) -> None:
        self._url = url
        self._shown = address(url)
        self._api_key = api_key
        self._collection = collection
        self._embedder = embedder or WordLlamaEmbedder()
        self._timeout = timeout
        self._given = client
        self._client: AsyncQdrantClient | None = None

    async def open(self) -> None:
        """Connect, and create collection and indexes if missing; several processes may do so at once.

        Raises:
            StorageError: the server does not answer or refuses, or the collection was made for other vectors.

        """
        if self._client is not None:
            return
        self._client = self._given or AsyncQdrantClient(
            url=self._url, api_key=self._api_key, timeout=self._timeout, check_compatibility=False
        )
        try:
            async with self._translated() as client:
                await self._prepare(client)
        except BaseException:
            await self.close()
            raise

    async def remember(self, records: list[MemoryRecord]) -> None:
        """Store *records*, acknowledged by the server as written; see `LongTermMemory.remember`."""
        if not records:
            return
        points = await asyncio.to_thread(encode_records, records, self._embedder)
        async with self._translated() as client:
            stored = await client.retrieve(
                self._collection, [point.record.id for point in points], with_payload=["tenant"]
            )
            owners = {str(found.id): (found.payload or {}).get("tenant") for found in stored}
            refuse_foreign([point.record for point in points], owners)
            for batch in _batches(points):
                await client.upsert(self._collection, [_to_point(point) for point in batch], wait=True)

    async def search(self, tenant: str, text: str, limit: int, *, thread: str | None = None) -> list[MemoryHit]:
        """Return the best hits; see `LongTermMemory.search`. The score is that of the fusion, at most 1."""
        if limit < 1 or not text.strip():
            return []
        query = await asyncio.to_thread(encode_query, text, self._embedder)
        where = _where(tenant=tenant, thread=thread)
        branches = list(_branches(query, candidates(limit), where))
        if not branches:
            return []
        async with self._translated() as client:
            found = await client.query_points(
                self._collection,
                query=models.RrfQuery(rrf=models.Rrf(k=RRF_K)),
                prefetch=branches,
                query_filter=where,
                limit=limit,
                with_payload=True,
            )
        return [to_hit(point.id, point.score, point.payload) for point in found.points]

    async def count(self, tenant: str) -> int:
        """Return how many memories *tenant* has."""
        async with self._translated() as client:
            return (await client.count(self._collection, count_filter=_where(tenant=tenant), exact=True)).count

    async def forget(self, tenant: str, *, thread: str | None = None, run_id: str | None = None) -> int:
        """Remove memories; see `LongTermMemory.forget`. What another process adds meanwhile may not be counted."""
        where = _where(tenant=tenant, thread=thread, run_id=run_id)
        async with self._translated() as client:
            count = (await client.count(self._collection, count_filter=where, exact=True)).count
            await client.delete(self._collection, points_selector=models.FilterSelector(filter=where), wait=True)
        return count

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None and client is not self._given:
            await client.close()

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[AsyncQdrantClient]:
        """Lend the client, and turn its errors into ours."""
        if self._client is None:
            raise StorageError(
                f"The long-term memory at {self._shown} is not available: it has not answered yet. Start it, or "
                "correct HOLDFAST_QDRANT_URL."
            )
        try:
            yield self._client
        except UnexpectedResponse as exc:
            if exc.status_code in (401, 403):
                raise StorageError(
                    f"Qdrant at {self._shown} refused the API key (HTTP {exc.status_code}). Correct "
                    "HOLDFAST_QDRANT_API_KEY."
                ) from exc
            if exc.status_code in REFUSALS:
                raise MemoryRefused(
                    f"Qdrant at {self._shown} refused an operation (HTTP {exc.status_code}) permanently: {exc}."
                ) from exc
            raise StorageError(f"Qdrant at {self._shown} refused an operation: {exc}. See the log of Qdrant.") from exc
        except (ApiException, OSError) as exc:  # not reached, cut off, or too slow
            raise StorageError(
                f"Qdrant at {self._shown} did not answer ({exc}). Start it, or correct HOLDFAST_QDRANT_URL."
            ) from exc

    async def _prepare(self, client: AsyncQdrantClient) -> None:
        if not await client.collection_exists(self._collection):
            try:
                await client.create_collection(
                    self._collection,
                    vectors_config={
                        DENSE: models.VectorParams(size=self._embedder.dimensions, distance=models.Distance.COSINE)
                    },
                    sparse_vectors_config={SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                )
            except (UnexpectedResponse, ValueError):  # the server and the local mode each say "exists" in their own way
                if not await client.collection_exists(self._collection):
                    raise
        # Not left to whoever created the collection: it may have been killed before it came to the indexes.
        info = await client.get_collection(self._collection)
        for field in (field for field in KEYWORDS if field not in info.payload_schema):
            schema = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=field == "tenant")
            await client.create_payload_index(self._collection, field, schema, wait=True)
        vectors = info.config.params.vectors
        dense = vectors.get(DENSE) if isinstance(vectors, dict) else None
        if dense is None or dense.size != self._embedder.dimensions:
            raise StorageError(
                f"Collection {self._collection!r} of Qdrant at {self._shown} was not made for vectors of "
                f"{self._embedder.dimensions} dimensions. Go back to the embedding model it was made with, or use "
                "another collection."
            )


def _where(**fields: str | None) -> models.Filter:
    return models.Filter(
        must=[
            models.FieldCondition(key=key, match=models.MatchValue(value=value))
            for key, value in fields.items()
            if value is not None
        ]
    )


def _branches(query: EncodedQuery, limit: int, where: models.Filter) -> Iterator[models.Prefetch]:
    if query.dense is not None:
        yield models.Prefetch(query=query.dense, using=DENSE, filter=where, limit=limit)
    if query.sparse.indices:
        # Word frequencies are counted within the filter: no tenant's ranking tells of another's texts.
        own = models.SearchParams(idf=models.IdfCorpusParams(corpus=where))
        sparse = models.SparseVector(indices=query.sparse.indices, values=query.sparse.values)
        yield models.Prefetch(query=sparse, using=SPARSE, filter=where, limit=limit, params=own)


def _to_point(point: EncodedRecord) -> models.PointStruct:
    vectors: dict[str, models.Vector] = {}
    if point.dense is not None:
        vectors[DENSE] = point.dense
    if point.sparse.indices:
        vectors[SPARSE] = models.SparseVector(indices=point.sparse.indices, values=point.sparse.values)
    return models.PointStruct(id=point.record.id, vector=vectors, payload=point.payload())


def _batches(points: list[EncodedRecord]) -> Iterator[list[EncodedRecord]]:
    """Yield *points* in requests that a server takes: none too long, unless one text alone is."""
    batch: list[EncodedRecord] = []
    size = 0
    for point in points:
        length = len(point.record.text)
        if batch and (len(batch) == _BATCH_POINTS or size + length > _BATCH_CHARS):
            yield batch
            batch, size = [], 0
        batch.append(point)
        size += length
    if batch:
        yield batch

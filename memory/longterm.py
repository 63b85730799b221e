"""The port of the long-term semantic memory; activities call it, `qdrant_edge` and `qdrant_server` implement it.

Both adapters store the same points: a dense vector of meaning and a sparse one of words per text, and search both,
fused by reciprocal rank (Cormack, Clarke and Buettcher 2009). Every search, count and removal is bound to one tenant.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, ClassVar, NamedTuple, Protocol, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator

from holdfast.contracts import MemoryHit
from holdfast.errors import HoldfastError, MemoryRefused, StorageError
from holdfast.memory.embeddings import Embedder, Sparse, Vectors, sparse_document, sparse_query, valid_unicode

__all__ = [
    "DENSE",
    "REFUSALS",
    "RRF_K",
    "SPARSE",
    "EncodedQuery",
    "EncodedRecord",
    "LongTermMemory",
    "MemoryRecord",
    "candidates",
    "encode_query",
    "encode_records",
    "point_id",
    "refuse_foreign",
    "takes_probe",
    "to_hit",
]

REFUSALS = frozenset({400, 413, 422})
"""HTTP statuses by which a provider or a store says that it will never take this request."""

POINT_NAMESPACE = uuid.UUID("2d0e6a3c-4f0b-5b52-8a57-6b0a3f1f6c55")
DENSE, SPARSE = "dense", "bm25"  # names of the two vectors of a point
KEYWORDS = ("tenant", "thread", "run_id")  # payload fields that filters name, so the engines index them
# Qdrant's own default. The paper's 60 lets middling ranks in both lists beat the best of one: of 400 questions that
# name a number, 100 % had their answer among five hits with 2, and 69 % with 60.
RRF_K = 2
_PROBE = "The ship arrives in the harbour at noon."  # any text that every embedding model and store takes
_PROBE_OWNER = ":probe"  # no tenant may be named so: nobody finds, counts or forgets the probe


def point_id(source_key: str) -> str:
    """Return the id (a UUID) under which whatever *source_key* names is remembered: the same key, the same point."""
    return str(uuid.uuid5(POINT_NAMESPACE, source_key))


class MemoryRecord(BaseModel):
    """One text to remember.

    `source_key` names what the text came from (a run, a ledger key) and must be unique among all tenants; `id` is
    derived from it when it is left out.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    id: str = ""
    tenant: str = Field(min_length=1)
    text: str
    thread: str
    run_id: str
    at: AwareDatetime
    kind: str = "note"
    source_key: str = Field(min_length=1)

    @field_validator("text", "source_key")
    @classmethod
    def _valid(cls, value: str) -> str:
        return valid_unicode(value)

    @model_validator(mode="after")
    def _identify(self) -> Self:
        object.__setattr__(self, "id", str(uuid.UUID(self.id)) if self.id else point_id(self.source_key))
        return self


class LongTermMemory(Protocol):
    """What is remembered across threads, found again by meaning.

    Every method raises `StorageError` when the store or the embedding model cannot be reached or refuses; the message
    says what to do. `MemoryRefused`, which is one, says that no other try of this text will help,
    unless memory refuses every text: see `takes_probe`.
    """

    async def open(self) -> None:
        """Connect, and create what is missing. Does nothing when open already."""
        ...

    async def remember(self, records: list[MemoryRecord]) -> None:
        """Store *records*; when this returns they outlive a kill -9. Storing one again leaves one point.

        Where it raises, some may be stored: a `MemoryRefused` may be about one of them alone.
        """
        ...

    async def search(self, tenant: str, text: str, limit: int, *, thread: str | None = None) -> list[MemoryHit]:
        """Return at most *limit* memories of *tenant* (of *thread*, if given), best first; none for a blank text."""
        ...

    async def count(self, tenant: str) -> int:
        """Return how many memories *tenant* has."""
        ...

    async def forget(self, tenant: str, *, thread: str | None = None, run_id: str | None = None) -> int:
        """Remove the memories of *tenant* that match every given field; return how many there were."""
        ...

    async def close(self) -> None:
        """Release everything. Does nothing when closed already."""
        ...


class EncodedRecord(NamedTuple):
    """A record and its vectors; `dense` is None for a text without tokens, `sparse` is empty for one without words."""

    record: MemoryRecord
    dense: list[float] | None
    sparse: Sparse

    def payload(self) -> dict[str, str]:
        """Return what the engine stores beside the vectors."""
        return self.record.model_dump(mode="json", exclude={"id"})


class EncodedQuery(NamedTuple):
    """The vectors of a text to search for; see `EncodedRecord`."""

    dense: list[float] | None
    sparse: Sparse


def encode_records(records: list[MemoryRecord], embedder: Embedder) -> list[EncodedRecord]:
    """Return *records* with their vectors; of records with one id, the last. CPU-bound: call it in a thread.

    Raises:
        MemoryRefused: two records with one id belong to different tenants, or the embedding model refuses a text.
        StorageError: the embedding model does not answer.

    """
    unique: dict[str, MemoryRecord] = {}
    for record in records:
        refuse_foreign([record], {record.id: unique[record.id].tenant} if record.id in unique else {})
        unique[record.id] = record
    kept = list(unique.values())
    vectors = _embed(embedder, [record.text for record in kept])
    return [
        EncodedRecord(record, vector.tolist() if vector.any() else None, sparse_document(record.text))
        for record, vector in zip(kept, vectors, strict=True)
    ]


def encode_query(text: str, embedder: Embedder) -> EncodedQuery:
    """Return the vectors of a text to search for. CPU-bound: call it in a thread. Raises as `encode_records`."""
    vector = _embed(embedder, [text])[0]
    return EncodedQuery(vector.tolist() if vector.any() else None, sparse_query(text))


def _embed(embedder: Embedder, texts: list[str]) -> Vectors:
    """Return the texts' vectors, and turn the errors of a provider's client library into ours, by their HTTP status."""
    try:
        return embedder.embed(texts)
    except HoldfastError:
        raise
    except Exception as exc:
        status = getattr(exc, "status_code", None) or getattr(getattr(exc, "response", None), "status_code", None)
        if status in REFUSALS:
            which = "a text" if len(texts) == 1 else f"one of {len(texts)} texts"
            raise MemoryRefused(
                f"The embedding model refused {which} (HTTP {status}): {exc}. A retry would fail too: change the text."
            ) from exc
        raise StorageError(
            f"The embedding model did not answer: {type(exc).__name__}: {exc}. Holdfast retries."
        ) from exc


def refuse_foreign(records: list[MemoryRecord], owners: Mapping[str, object]) -> None:
    """Raise unless every record whose id is in *owners* (id to tenant) belongs to that tenant.

    Raises:
        MemoryRefused: storing the record would overwrite another tenant's memory.

    """
    for record in records:
        if owners.get(record.id, record.tenant) != record.tenant:
            raise MemoryRefused(
                f"Memory {record.id} (source key {record.source_key[:140]!r}) belongs to another tenant; nothing was "
                "stored. Use source keys that are unique among all tenants, such as run ids."
            )


async def takes_probe(memory: LongTermMemory) -> bool:
    """Store a harmless text and remove it again; return whether it was stored.

    After a refusal this tells one text that memory never takes from a fault that makes it refuse every text, such as a
    collection for other vectors or a limit that is reached.
    """
    record = MemoryRecord(
        tenant=_PROBE_OWNER,
        text=_PROBE,
        thread="probe",
        run_id="probe",
        at=datetime.now(UTC),
        source_key=f"{_PROBE_OWNER}:{uuid.uuid4().hex}",
    )
    try:
        await memory.remember([record])
    except StorageError:
        return False
    with suppress(StorageError):  # what remains is removed with the next probe
        await memory.forget(_PROBE_OWNER)
    return True


def candidates(limit: int) -> int:
    """Return how many hits each of the two searches contributes to a fusion that keeps *limit*."""
    return max(50, 4 * limit)


def to_hit(identity: object, score: float, payload: Mapping[str, Any] | None) -> MemoryHit:
    """Return an engine's point as a hit."""
    fields = payload or {}
    return MemoryHit.model_validate({**fields, "id": str(identity), "score": score})

"""Names and hashes that every room computes alike. Pure functions, safe in workflow code."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from datetime import UTC, datetime
from typing import Any

from holdfast.errors import InvalidInput

__all__ = [
    "RUN_NAMESPACE",
    "args_hash",
    "canonical_json",
    "check_part",
    "child_thread",
    "control_queue",
    "effect_key",
    "effect_scope",
    "occurrence_thread",
    "run_id_for",
    "run_ids_from",
    "schedule_id_for",
    "split_workflow_id",
    "storable",
    "workflow_id_for",
]

RUN_NAMESPACE = uuid.UUID("6f8f57f0-6f0e-5a3b-9d0c-1b8f3f6f7a11")
_PART = re.compile(r"[A-Za-z0-9._-]{1,128}")


def _framed(*parts: str) -> bytes:
    """Join *parts* so that no two lists of parts share an encoding: each is preceded by its length."""
    return b"".join(len(raw := part.encode()).to_bytes(8, "big") + raw for part in parts)


def check_part(what: str, value: str) -> str:
    """Return *value* if it may be a part of a workflow id.

    Raises:
        InvalidInput: it has a character outside A-Z a-z 0-9 . _ - or more than 128 of them.

    """
    if not _PART.fullmatch(value):
        raise InvalidInput(f"{what} {value[:140]!r} is not allowed: use 1 to 128 of the characters A-Z a-z 0-9 . _ -")
    return value


def workflow_id_for(tenant: str, thread: str) -> str:
    """Return the id of the one workflow that writes this thread."""
    return f"{check_part('tenant', tenant)}:{check_part('thread', thread)}"


def split_workflow_id(workflow_id: str) -> tuple[str, str]:
    """Return (tenant, thread) of a workflow id.

    Raises:
        InvalidInput: it does not have the form `tenant:thread`.

    """
    tenant, colon, thread = workflow_id.partition(":")
    if not colon:
        raise InvalidInput(f"workflow id {workflow_id[:140]!r} must be `tenant:thread`, like default:customer-42")
    return check_part("tenant", tenant), check_part("thread", thread)


def run_id_for(tenant: str, thread: str, message_id: str) -> str:
    """Return the run id of a message: the same message always names the same run."""
    return str(uuid.uuid5(RUN_NAMESPACE, hashlib.sha256(_framed(tenant, thread, message_id)).hexdigest()))


def run_ids_from(prefix: str) -> tuple[uuid.UUID, uuid.UUID] | None:
    """Return the first and the last run id that begin so, or None if none can: an index finds what is between them."""
    zeros = str(uuid.UUID(int=0))
    rest = zeros[len(prefix) :]
    if len(prefix) > len(zeros) or any((char == "-") != (at == "-") for char, at in zip(prefix, zeros, strict=False)):
        return None
    try:
        return uuid.UUID(prefix + rest), uuid.UUID(prefix + rest.replace("0", "f"))
    except ValueError:
        return None


def control_queue(task_queue: str) -> str:
    """Return the task queue of short activities beside that of an agent's workflows and long calls.

    A name made of the other: a workflow knows it before its first admission has told it anything.
    """
    return f"{task_queue}-control"


def schedule_id_for(tenant: str, name: str) -> str:
    """Return the id of a Temporal Schedule; its workflows are called so too, with their time behind it.

    No thread's workflow has such an id, which begins with its tenant.

    """
    return f"schedule:{check_part('tenant', tenant)}:{check_part('schedule', name)}"


def occurrence_thread(schedule: str, at: datetime) -> str:
    """Return the thread of one occurrence of a schedule that has a thread for each."""
    return f"{schedule}-{at.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def effect_scope(workflow_id: str, first_execution_run_id: str) -> str:
    """Return the scope of a thread's effects; it survives continue-as-new and Reset.

    On a thread that another run asked for, the key of its step stands for the first execution.
    """
    return f"{workflow_id}@{first_execution_run_id}"


def effect_key(scope: str, step_no: int, tool: str) -> str:
    """Return the ledger key of a step, 64 hex digits. It is also the idempotency key a tool sends."""
    return hashlib.sha256(_framed(scope, str(step_no), tool)).hexdigest()


def child_thread(agent: str, key: str) -> str:
    """Return the thread on which *agent* is asked by the step of this key: the same step asks on the same thread."""
    return f"{agent[:60]}-{key[:32]}"


def canonical_json(value: Any) -> str:
    """Return the one JSON text of *value* that hashes are taken of: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def storable(text: str) -> str:
    """Return *text* without what PostgreSQL cannot hold: NUL is left out, a lone half of a surrogate pair is replaced.

    Models stream the two halves of a character in two pieces now and then: those are put together.
    """
    text = text.replace("\0", "")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def args_hash(args: dict[str, Any]) -> str:
    """Return the hash that binds a call, its approval and its ledger row to these arguments."""
    return hashlib.sha256(canonical_json(args).encode()).hexdigest()

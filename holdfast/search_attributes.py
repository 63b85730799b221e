"""The search attributes that make the Temporal Web UI readable: workflows set them, runtime and stack register them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from holdfast.errors import StackError

if TYPE_CHECKING:
    from temporalio.client import Client

__all__ = ["SEARCH_ATTRIBUTES", "ensure_search_attributes", "namespace_problem", "register_command"]

_RPC_TIMEOUT: Final = 5.0

SEARCH_ATTRIBUTES: Final[dict[str, str]] = {
    "HoldfastTenant": "Keyword",
    "HoldfastAgent": "Keyword",
    "HoldfastState": "Keyword",
    "HoldfastNeedsApproval": "Bool",
    "HoldfastCostUsd": "Double",
    "HoldfastParentRun": "Keyword",
}


def register_command(names: list[str], *, address: str, namespace: str) -> str:
    """Return the shell command that registers *names* by hand."""
    pairs = " ".join(f"--name {name} --type {SEARCH_ATTRIBUTES[name]}" for name in names)
    return f"temporal operator search-attribute create --address {address} --namespace {namespace} {pairs}"


async def _connect(address: str, namespace: str) -> Client:
    from temporalio.client import Client

    from holdfast.convert import quiet_runtime

    connecting = Client.connect(address, namespace=namespace, runtime=quiet_runtime())
    return await asyncio.wait_for(connecting, timeout=2 * _RPC_TIMEOUT)


async def namespace_problem(address: str, namespace: str) -> str | None:
    """Return None if the server answers for *namespace*, else why not."""
    from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
    from temporalio.service import RPCError

    try:
        client = await _connect(address, namespace)
        await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=namespace), timeout=timedelta(seconds=_RPC_TIMEOUT)
        )
    except (RPCError, RuntimeError, OSError, TimeoutError) as exc:
        return str(exc) or type(exc).__name__
    return None


async def ensure_search_attributes(address: str, namespace: str, client: Client | None = None) -> list[str]:
    """Register our search attributes on a server if they are missing; return the names registered now.

    With a *client*, by its connection, which may need what an address alone does not tell.

    Raises:
        StackError: the server does not answer, an attribute has another type, or registering is not allowed; the
            message has the command to run.

    """
    from temporalio.api.enums.v1 import IndexedValueType
    from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
    from temporalio.service import RPCError, RPCStatusCode

    problem = await namespace_problem(address, namespace) if client is None else None
    if problem is not None:
        raise StackError(
            f"The Temporal server at {address} cannot be used: {problem}. "
            f"Check TEMPORAL_ADDRESS, that it is up, and that it has the namespace {namespace!r} (TEMPORAL_NAMESPACE)."
        )
    kinds = {name: IndexedValueType.Value(_type_name(kind)) for name, kind in SEARCH_ATTRIBUTES.items()}
    timeout = timedelta(seconds=2 * _RPC_TIMEOUT)
    operator = (client or await _connect(address, namespace)).operator_service
    missing = list(kinds)
    try:
        have: dict[str, int] = {}
        try:
            listing = ListSearchAttributesRequest(namespace=namespace)
            have.update((await operator.list_search_attributes(listing, timeout=timeout)).custom_attributes)
        except RPCError as exc:
            if exc.status != RPCStatusCode.UNIMPLEMENTED:  # Temporal's time-skipping test server can add, and not list
                raise
        wrong = [name for name, kind in kinds.items() if have.get(name, kind) != kind]
        if wrong:
            raise StackError(
                f"The namespace {namespace!r} at {address} has search attributes of another type: {', '.join(wrong)}. "
                f"Remove them, then run: {register_command(wrong, address=address, namespace=namespace)}"
            )
        missing = [name for name in kinds if name not in have]
        if missing:
            wanted = {name: kinds[name] for name in missing}
            await operator.add_search_attributes(
                AddSearchAttributesRequest(namespace=namespace, search_attributes=wanted), timeout=timeout
            )
    except RPCError as exc:
        if exc.status == RPCStatusCode.ALREADY_EXISTS:  # another process was quicker
            return []
        raise StackError(
            f"The search attributes {', '.join(missing)} could not be registered at {address}: {exc.message}. "
            "On Temporal Cloud add them in the namespace's settings; elsewhere run: "
            + register_command(missing, address=address, namespace=namespace)
        ) from exc
    return missing


def _type_name(kind: str) -> str:
    return f"INDEXED_VALUE_TYPE_{kind.upper()}"

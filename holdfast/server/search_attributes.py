"""The search attributes that make the Temporal Web UI readable. The stack registers them; workflows set them."""

from __future__ import annotations

from typing import Final

__all__ = ["SEARCH_ATTRIBUTES", "register_command"]

SEARCH_ATTRIBUTES: Final[dict[str, str]] = {
    "HoldfastTenant": "Keyword",
    "HoldfastAgent": "Keyword",
    "HoldfastState": "Keyword",
    "HoldfastNeedsApproval": "Bool",
    "HoldfastCostUsd": "Double",
}


def register_command(names: list[str], *, address: str, namespace: str) -> str:
    """Return the shell command that registers *names* by hand."""
    pairs = " ".join(f"--name {name} --type {SEARCH_ATTRIBUTES[name]}" for name in names)
    return f"temporal operator search-attribute create --address {address} --namespace {namespace} {pairs}"

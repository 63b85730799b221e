"""The page of events: each kind with its fields."""

from __future__ import annotations

from holdfast.contracts import Event
from scripts.reference.kinds import KINDS
from scripts.reference.markdown import escaped, fill, table
from scripts.reference.shapes import named

__all__ = ["render"]


def render() -> str:
    """Return the page."""
    rows = [(f"`{name}`", field.description or "") for name, field in Event.model_fields.items()]
    out = []
    for kind, model in KINDS.items():
        out.append(f"## {kind}\n\n{' '.join((model.__doc__ or '').split())}\n")
        rows3 = [
            (f"`{name}`", escaped(named(field.annotation)), escaped(field.description or ""))
            for name, field in model.model_fields.items()
        ]
        if rows3:
            out.append(table(("field", "type", "what it is"), rows3) + "\n")
    return fill("events", fields=table(("field", "what it is"), rows), kinds="\n".join(out).rstrip("\n"))

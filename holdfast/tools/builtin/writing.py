"""The tools `write_file`, `patch_file` and `delete_file` for one folder; `files(root, write=True)` adds them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from holdfast.contracts import ApprovalPolicy
from holdfast.errors import ToolError
from holdfast.tools.builtin.folder import Folder
from holdfast.tools.builtin.tree import KEPT, Change, Tree
from holdfast.tools.context import ToolContext
from holdfast.tools.tool import AnyTool, Tool

__all__ = ["writing_tools"]

_DIFF = 60  # lines of a change that are told
_TIMEOUT = 30.0

FilePath = Annotated[str, Field(min_length=1, max_length=1000, description="path below the root: docs/notes.md")]


def writing_tools(folder: Folder, *, approval: ApprovalPolicy, most: int, prefix: str) -> list[AnyTool]:
    """Return the three tools for an existing folder."""
    tree = Tree(folder, most)

    def write_file(
        ctx: ToolContext,
        path: FilePath,
        content: Annotated[str, Field(max_length=most, description="the whole text of the file")],
        overwrite: Annotated[bool, Field(description="replace a file that is there")] = False,
    ) -> str:
        """Create a text file, with the folders it needs; with overwrite, replace one. Patch rather than rewrite."""

        def make(before: bytes | None) -> bytes:
            if before is not None and not overwrite:
                raise ToolError(
                    f"{path!r} is there already: change it with {prefix}patch_file, or replace it with overwrite=true"
                )
            return content.encode()

        done = tree.change(path, ctx.idempotency_key, ctx.deadline, make)
        what = "created" if done.before is None else "replaced"
        return f"{'wrote' if done.again else what} {done.path} ({len(content.encode()):,} bytes)"

    def patch_file(
        ctx: ToolContext,
        path: FilePath,
        old: Annotated[str, Field(min_length=1, max_length=most, description="text to replace, exactly as it stands")],
        new: Annotated[str, Field(max_length=most, description="text to put there")],
    ) -> str:
        """Replace one passage of a text file. The old text must stand in it exactly once."""
        done = tree.change(path, ctx.idempotency_key, ctx.deadline, lambda before: _patched(path, before, old, new))
        return f"patched {done.path}" if done.again else _told(done)

    def delete_file(ctx: ToolContext, path: FilePath) -> str:
        """Delete one file."""

        def make(before: bytes | None) -> None:
            if before is None:
                raise ToolError(f"there is no file {path!r}")

        done = tree.change(path, ctx.idempotency_key, ctx.deadline, make)
        return f"deleted {done.path}"

    functions: list[Callable[..., str]] = [write_file, patch_file, delete_file]
    return [
        Tool(
            each,
            effect="keyed",
            key_lifetime=KEPT - 86_400.0,
            approval=approval,
            name=prefix + each.__name__,
            timeout=_TIMEOUT,
            local={"most": most},
        )
        for each in functions
    ]


def _patched(path: str, before: bytes | None, old: str, new: str) -> bytes:
    if before is None:
        raise ToolError(f"there is no file {path!r}")
    try:
        text = before.decode()
    except UnicodeDecodeError:
        raise ToolError(f"{path!r} is not text in UTF-8: it cannot be patched") from None
    if old == new:
        raise ToolError("old and new are the same: nothing would change")
    if old not in text and "\r\n" in text and "\r" not in old:  # the file's own line ends, which a model seldom sees
        old, new = old.replace("\n", "\r\n"), new.replace("\n", "\r\n")
    places = _places(text, old)
    if not places:
        loose = " ".join(old.split()) in " ".join(text.split())
        hint = "it differs in white space only" if loose else "read the file and copy the passage from there"
        raise ToolError(f"the old text is not in {path!r}: {hint}. Nothing was changed.")
    if len(places) > 1:
        lines = ", ".join(str(text.count("\n", 0, at) + 1) for at in places[:10])
        raise ToolError(f"the old text is in {path!r} {len(places)} times, at lines {lines}: give more around it")
    at = places[0]
    return (text[:at] + new + text[at + len(old) :]).encode()


def _places(text: str, part: str) -> list[int]:
    """Return where *part* begins, overlapping ones too, a thousand at most."""
    found: list[int] = []
    at = text.find(part)
    while at >= 0 and len(found) < 1000:
        found.append(at)
        at = text.find(part, at + 1)
    return found


def _told(done: Change) -> str:
    before = (done.before or b"").decode("utf-8", "replace").splitlines()
    after = (done.after or b"").decode("utf-8", "replace").splitlines()
    lines = list(difflib.unified_diff(before, after, done.path, done.path, lineterm="", n=2))
    cut = [f"… {len(lines) - _DIFF} more lines"] if len(lines) > _DIFF else []
    return "\n".join([f"patched {done.path}", *lines[:_DIFF], *cut])

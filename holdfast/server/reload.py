"""Watches the agents file and what it imports, and asks for new workers when it loads. `run_stack` runs it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, Literal

from holdfast.server.trial import Verdict, try_agents
from holdfast.settings import Settings
from holdfast.tools.imports import imported_files
from holdfast.trust import read_source

__all__ = ["Reloader", "file_hash"]

_LOOK: Final = 0.4  # seconds between two looks at the files' times
_STILL: Final = 0.25  # seconds without a change after which an editor, or git, is taken to have finished

_TRIES: Final = 3  # to replace workers that are late

Stamps = dict[Path, tuple[int, int, int] | None]


def file_hash(path: Path) -> str | None:
    """Return the SHA-256 of a file, or None if it cannot be read."""
    try:
        return hashlib.sha256(read_source(path)).hexdigest()
    except OSError:
        return None


class Reloader:
    """Tells when the workers should be replaced. What does not load is reported, and the workers stay as they are."""

    def __init__(
        self,
        settings: Settings,
        environment: Callable[[], Mapping[str, str]],
        *,
        roll: Callable[[], None],
        notify: Callable[[str], None],
        told: Callable[[str | None, str | None], None],
        attempt: Callable[..., Awaitable[Verdict]] = try_agents,
    ) -> None:
        """Take the files as they are now for what the workers have loaded.

        *roll* asks for new workers; *notify* hears lines for a person; *told* hears (hash of the agents file that does
        not load, why), or (None, None) when all is well again. *environment* gives that of a worker.
        """
        self._agents = settings.agents.absolute()
        self._environment = environment
        self._timeout = settings.scaled(settings.start_timeout)
        self._roll, self._notify, self._told, self._attempt = roll, notify, told, attempt
        self._files = imported_files(self._agents)
        self.tried: dict[Path, str | None] = self._hashes()
        """Hashes of the files as they were last tried, or loaded by the first workers."""
        self._in_use: dict[Path, str | None] | None = self.tried  # None while, or after, some workers are others
        self._rolled = self.tried
        self._good = True
        self._again = False
        self._late = 0
        self._plugins = self._names_plugins()
        self.memory_is_old = False
        """Whether the memory process may have loaded plugins that the workers no longer have, or lacks theirs."""

    @property
    def version(self) -> str | None:
        """The hash of the agents file as it was last tried."""
        return self.tried.get(self._agents)

    def unchanged(self) -> bool:
        """Say whether a worker that starts now would load what was tried, and found good."""
        return self._good and self._hashes() == self.tried

    @property
    def changed(self) -> bool:
        """Whether new workers would load other files than the present ones have, or some of those."""
        return self._in_use is None or self._in_use != self.tried

    def rolling(self) -> str | None:
        """Hear that workers are being replaced; return the hash of the agents file that they will load."""
        self._rolled, self._in_use = self.tried, None
        return self.version

    def loaded(self) -> None:
        """Hear that all workers have been replaced."""
        self._in_use, self._late = self._rolled, 0

    def not_loaded(self, why: Literal["changed", "refused", "late"]) -> None:
        """Hear that not all workers were replaced, and try again: at once, or if one refused at the next save.

        `late`: one was not ready in time, as on a machine with too much to do; that is tried a few times.
        """
        self._in_use = None
        self._late += why == "late"
        self._again = why == "changed" or (why == "late" and self._late < _TRIES)
        if not self._again:
            self.tried = {}

    def _hashes(self) -> dict[Path, str | None]:
        return {path: file_hash(path) for path in self._files}

    def _names_plugins(self) -> bool:
        """Whether the agents file, or what it imports, seems to list plugins; it is read, not run."""
        for path in self._files:
            with contextlib.suppress(OSError):
                if b"plugins" in read_source(path):
                    return True
        return False

    def _stamps(self) -> Stamps:
        found: Stamps = {}
        for path in self._files:
            try:
                stat = path.stat()
            except OSError:
                found[path] = None
            else:
                found[path] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        return found

    async def watch(self) -> None:
        """Look for changes until cancelled."""
        stamps: Stamps = {}  # the first look compares contents: they may have changed since the workers started
        while True:
            if stamps != (now := self._stamps()) or self._again:
                while now != (later := await self._after(_STILL)):
                    now = later
                stamps = now
                await self._changed()
            await asyncio.sleep(_LOOK)

    async def _after(self, seconds: float) -> Stamps:
        await asyncio.sleep(seconds)
        return self._stamps()

    async def _changed(self) -> None:
        """Try what is there now, unless its contents are what they were: touching a file changes nothing."""
        self._files = imported_files(self._agents)
        hashes = self._hashes()
        same = {path: found for path, found in hashes.items() if found} == {p: h for p, h in self.tried.items() if h}
        if same and not self._again:
            return
        if not same:
            self._late = 0
        self._again = False
        if hashes == self._in_use:  # a mistake was taken back
            self.tried, self._good = hashes, True
            self._told(None, None)
            self._notify(f"{self._agents.name} is again what the workers have loaded")
            if self.memory_is_old:  # it refused these files, or has to load them yet
                self._roll()
            return
        changed = [path for path in sorted({*hashes, *self.tried}) if hashes.get(path) != self.tried.get(path)]
        names = ", ".join(path.name for path in changed[:3] or [self._agents])
        names += " and others" if len(changed) > 3 else ""
        self._notify(f"{names} changed: checking whether it loads before new workers start")
        verdict = await self._attempt(self._environment(), timeout=self._timeout)
        self.tried, self._good = hashes, verdict.error is None
        if verdict.error is not None:
            self._told(self.version, verdict.error)
            self._notify(f"{names} changed, and cannot be used; the workers go on with what they have\n{verdict.error}")
            return
        before, self._plugins = self._plugins, self._names_plugins()
        self.memory_is_old = self.memory_is_old or before or self._plugins
        self._told(None, None)
        self._notify(f"{names} changed and loads; runs under way keep their definition")
        self._roll()

"""Names of secrets in place of their values, resolved where they are used, and masked where they leak.

`secret("NAME")` is a text that stands for the value in what agents, tools and MCP servers are declared with. Workers
resolve it at each use, from plugins and the environment. Any room may call this.
"""

from __future__ import annotations

import base64
import json
import os
import re
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus, unquote, urlsplit

from holdfast.errors import ConfigurationError, MissingSecret

__all__ = ["Mask", "Secrets", "has_secret", "leaks", "mask", "reveal", "secret", "secret_names", "use"]

T = TypeVar("T")
LookUp = Callable[[str], Awaitable[str | None]]

_NAME = r"[A-Za-z_][A-Za-z0-9_./-]{0,127}"
_PLACE = re.compile(rf"\$\{{secret:({_NAME})\}}")
_SHORTEST = 6  # characters; masking shorter values would blot out ordinary words
_MASK = "***"


def secret(name: str) -> str:
    """Return a text that stands for the secret called *name*, by itself or within another text.

    `headers={"Authorization": f"Bearer {secret('BILLING_KEY')}"}`. It is resolved in the worker, each time it is used.

    Raises:
        ConfigurationError: that is no name.

    """
    if not isinstance(name, str) or not re.fullmatch(_NAME, name):
        raise ConfigurationError(
            f"secret({name!r:.40}): a name has letters, digits and _ . / -, such as BILLING_KEY. Give the name and not "
            "the value."
        )
    return f"${{secret:{name}}}"


def has_secret(text: object) -> bool:
    """Whether *text* is a text with a placeholder in it."""
    return isinstance(text, str) and _PLACE.search(text) is not None


def secret_names(value: Any) -> set[str]:
    """Return the names of all secrets within a text, or within the texts of a nested value."""
    if isinstance(value, str):
        return set(_PLACE.findall(value))
    if isinstance(value, Mapping):
        return {name for part in value.items() for name in secret_names(part)}
    if isinstance(value, list | tuple | set | frozenset):
        return {name for part in value for name in secret_names(part)}
    return set()


@dataclass(frozen=True)
class Secrets:
    """Where a worker finds values: the stores of plugins in their order, then the environment, then `.env`."""

    stores: Sequence[tuple[str, LookUp]] = field(default_factory=list)

    async def value(self, name: str) -> str:
        """Return the value of a secret, and see to it that it is masked from now on.

        Raises:
            MissingSecret: no store has it; the message says how to set it.

        """
        for _, look_up in self.stores:
            found = await look_up(name)
            if found is not None:
                break
        else:
            found = _environment(name)
        if not found:
            raise MissingSecret(self._how(name))
        _remember(name, found)
        return found

    async def missing(self, names: Iterable[str]) -> list[str]:
        """Return, for each of these that is not set, a sentence that says so and how to set it."""
        problems = []
        for name in sorted(names):
            try:
                await self.value(name)
            except MissingSecret as exc:
                problems.append(str(exc))
        return problems

    def _how(self, name: str) -> str:
        asked = f" None of {', '.join(store for store, _ in self.stores)} has it either." if self.stores else ""
        variable = re.sub(r"[^A-Za-z0-9_]", "_", name)
        return (
            f"the secret {name} is not set. Set the environment variable {variable} where the workers run, or put it "
            f"into .env.{asked}"
        )

    async def reveal(self, value: T) -> T:
        """Return *value* with its placeholders resolved, in texts and in what is nested.

        Raises:
            MissingSecret: one is not set.

        """
        names = secret_names(value)
        if not names:
            return value
        values = {name: await self.value(name) for name in names}
        return _filled(value, values)  # type: ignore[no-any-return]


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _PLACE.sub(lambda match: values[match[1]], value)
    if isinstance(value, Mapping):
        return {_filled(key, values): _filled(part, values) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, values) for part in value]
    if isinstance(value, tuple):
        return tuple(_filled(part, values) for part in value)
    return value


def _environment(name: str) -> str | None:
    variable = re.sub(r"[^A-Za-z0-9_]", "_", name)
    found = os.environ.get(variable)
    if found is None and Path(".env").is_file():
        from dotenv import dotenv_values

        found = dotenv_values(".env").get(variable)
    return found


# ------------------------------------------------------------------------------------------------------------ in use

_HERE: ContextVar[Secrets | None] = ContextVar("holdfast_secrets", default=None)
_ENVIRONMENT = Secrets()


def use(secrets: Secrets) -> None:
    """Have `reveal` ask *secrets* in this context; tools run in a copy of their activity's."""
    _HERE.set(secrets)


async def reveal(value: T) -> T:
    """Return *value* with its placeholders resolved by the worker that this runs in. Raises as `Secrets.reveal`."""
    return await (_HERE.get() or _ENVIRONMENT).reveal(value)


# ---------------------------------------------------------------------------------------------------------- masking

_KEPT = 100  # values of one secret: some stores give another each time, and each is looked for in each line


class Mask:
    """Replaces values by `***`, in whatever form they show: as they are, within JSON or a URL, in Base64."""

    def __init__(self, values: Iterable[str] = (), *, shortest: int = _SHORTEST) -> None:
        """Know these values; those of fewer than *shortest* characters would be found in the middle of words."""
        known = {form for value in values if len(value) >= shortest for form in _forms(value) if len(form) >= shortest}
        self._longest_first = tuple(sorted(known, key=len, reverse=True))  # one may begin with another

    def __len__(self) -> int:
        """Return how many texts are looked for."""
        return len(self._longest_first)

    def __call__(self, text: str) -> str:
        """Return *text* with `***` for each."""
        for form in self._longest_first:
            if form in text:
                text = text.replace(form, _MASK)
        return text


@lru_cache(maxsize=1000)
def _forms(value: str) -> frozenset[str]:
    forms = {value, value.strip(), json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    forms |= {quote(value, safe=""), quote_plus(value), repr(value)[1:-1]}
    forms.add(base64.b64encode(value.encode()).decode())
    if "://" in value:  # the address of a database: its password alone is the secret, and shows alone in errors
        try:
            password = urlsplit(value).password
        except ValueError:
            password = None
        forms |= {password, unquote(password)} if password else set()
    return frozenset(forms)


_lock = threading.Lock()  # tools ask on a loop of their own
_used: dict[str, dict[str, None]] = {}  # by name, the values that this process has used; the last one last
_known = Mask()  # of them all; replaced as a whole: other threads mask meanwhile


def _remember(name: str, value: str) -> None:
    global _known
    with _lock:
        values = _used.setdefault(name, {})
        old = value in values
        values.pop(value, None)
        values[value] = None
        if old:
            return
        if len(values) > _KEPT:
            del values[next(iter(values))]
        _known = Mask(each for kept in _used.values() for each in kept)


def mask(text: str) -> str:
    """Return *text* with the values of secrets that this process has used replaced by `***`.

    Values under 6 characters are left; so are those that no longer stand as they are, such as a part of one.
    """
    return _known(text)


def leaks(exc: BaseException) -> bool:
    """Whether an exception, or one that it came from, shows the value of a secret."""
    if not _known:
        return False
    waiting: list[BaseException | None] = [exc]
    seen: set[int] = set()  # `raise … from …` names one exception twice
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        said = f"{link} {link.args!r}"
        if mask(said) != said:
            return True
        waiting += [link.__cause__, link.__context__, *getattr(link, "exceptions", ())]
    return False

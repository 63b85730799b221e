"""Names of secrets in place of their values, resolved where they are used, and masked where they leak.

`secret("NAME")` is a text that stands for the value in what agents, tools and MCP servers are declared with. Workers
resolve it at each use, from plugins and the environment. Any room may call this.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from html.entities import html5
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from holdfast.errors import ConfigurationError, MissingSecret

__all__ = [
    "SHORTEST_KEY",
    "Mask",
    "Secrets",
    "address",
    "has_secret",
    "is_plain",
    "know",
    "know_environment",
    "leaks",
    "mask",
    "reveal",
    "secret",
    "secret_names",
    "use",
]

T = TypeVar("T")
LookUp = Callable[[str], Awaitable[str | None]]

_NAME = r"[A-Za-z_][A-Za-z0-9_./-]{0,127}"
_PLACE = re.compile(rf"\$\{{secret:({_NAME})\}}")
_SHORTEST = 6  # characters; masking shorter values would blot out ordinary words
SHORTEST_KEY = 16  # of values nobody declared as secret: keys are longer than "default" and "ollama"
_KEY_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS)$", re.IGNORECASE)
_DECODED = 4 * 1024 * 1024  # characters; decoding more takes seconds, and the usual encodings are known as they are
_MASK = "***"
_AND = r"\\+u0026"  # the sign & where HTML stands in JSON
_LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}  # of escapes in JSON
_SHORT = {char: letter for letter, char in _LETTERS.items()} | {char: re.escape(char) for char in "\"'/\\"}


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

        found = dotenv_values(".env", interpolate=False).get(variable)
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
    """Replaces values by `***`, in whatever form they show: as they are, in JSON, percent-encoded, Base64, hex."""

    def __init__(self, values: Iterable[str] = (), *, shortest: int = _SHORTEST) -> None:
        """Know these values; those of fewer than *shortest* characters would be found in the middle of words."""
        kept = [value for value in values if len(value) >= shortest]
        known = {form for value in kept for form in _forms(value) if len(form) >= shortest}
        self._longest_first = tuple(sorted(known, key=len, reverse=True))  # one may begin with another
        self._plain = tuple(sorted({part for value in kept for part in _parts(value) if len(part) >= shortest}))

    def __len__(self) -> int:
        """Return how many texts are looked for."""
        return len(self._longest_first)

    def __call__(self, text: str) -> str:
        """Return *text* with `***` for each."""
        for form in self._longest_first:
            if form in text:
                text = text.replace(form, _MASK)
        return self._without_escapes(text) if len(text) <= _DECODED and any(sign in text for sign in "%\\&") else text

    def _without_escapes(self, text: str) -> str:
        """Mask what has escapes of URLs, JSON or HTML in it: which characters do, differs from library to library."""
        forms = {unquote(text), unquote(text).replace("+", " "), _from_json(html.unescape(text))}
        forms |= {_from_json(text), html.unescape(_from_json(text))}
        for value in self._plain:
            if any(value in form for form in forms):
                text = _encoded(value).sub(_MASK, text)
        return text


@lru_cache(maxsize=1000)
def _forms(value: str) -> frozenset[str]:
    forms = {value, value.strip(), json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    forms |= {json.dumps(form)[1:-1] for form in tuple(forms)}  # JSON that travels within JSON
    forms |= {quote(value), quote(value, safe=""), quote_plus(value), repr(value)[1:-1]}
    raw = value.encode("utf-8", "surrogatepass")
    forms |= {raw.hex(), raw.hex().upper(), *_base64(raw)}
    for password in _passwords(value):
        forms |= {password, *_base64(password.encode("utf-8", "surrogatepass"))}
    return frozenset(forms)


def _parts(value: str) -> set[str]:
    return {value, value.strip(), *_passwords(value)}


def _base64(raw: bytes) -> set[str]:
    """Return how bytes show in Base64, by themselves and as a part: as `user:password` they begin at any of 3 places.

    Of a part, the letters that also depend on its neighbours are left out: of those no more than 4 bits are ours.
    """
    forms = {base64.b64encode(raw).decode()}
    for before in range(3):
        text = base64.b64encode(b"\0" * before + raw).decode()
        forms.add(text[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6])
    forms |= {form.rstrip("=") for form in forms}
    return forms | {form.replace("+", "-").replace("/", "_") for form in forms}


@lru_cache(maxsize=1000)
def _encoded(value: str) -> re.Pattern[str]:
    """Return what finds *value* with any of its characters percent-encoded, or escaped as in JSON or HTML."""
    named: dict[str, list[str]] = {}
    for name, char in html5.items():
        named.setdefault(char, []).append(re.escape(name))

    def either(char: str) -> str:
        encoded = "".join(f"%{byte:02x}" for byte in char.encode("utf-8", "surrogatepass"))
        units = char.encode("utf-16-be", "surrogatepass").hex()
        escaped = "".join(rf"\\+u{units[at : at + 4]}" for at in range(0, len(units), 4))
        number = ord(char)
        forms = [re.escape(char), rf"(?i:{encoded}|{escaped}|(?:&|{_AND})\#(?:0*{number}|x0*{number:x});?)"]
        forms += [f"(?:&|{_AND})(?:{'|'.join(sorted(named[char], reverse=True))})"] if char in named else []
        if char in _SHORT:
            forms.append(rf"\\+{_SHORT[char]}")
        elif char == " ":
            forms.append(r"\+")
        return f"(?:{'|'.join(sorted(forms, key=len, reverse=True))})"  # `&` after `&amp;`

    return re.compile("".join(map(either, value)))


def _from_json(text: str) -> str:
    """Return *text* with the escapes of JSON resolved, however many backslashes they have."""
    text = re.sub(
        r"(?:\\+u[0-9a-fA-F]{4})+",
        lambda found: bytes.fromhex(re.sub(r"\\+u", "", found[0])).decode("utf-16-be", "replace"),
        text,
    )
    return re.sub(r"\\+([\"'/\\bfnrt])", lambda found: _LETTERS.get(found[1], found[1]), text)


def _passwords(value: str) -> set[str]:
    """Return the password of an address: it alone is the secret, and shows alone in errors.

    One that is also the name of the user, the host or the database would blot out ordinary words.
    """
    if "://" not in value:
        return set()
    try:
        url = urlsplit(value)
        words = {url.username, url.hostname, url.path.strip("/")}
        found = {url.password, *(text for name, text in parse_qsl(url.query) if name in ("password", "sslpassword"))}
    except ValueError:
        return set()
    return {form for each in found - words if each for form in (each, unquote(each))}


def address(url: str) -> str:
    """Return host, port and path of a URL, for people: without user, password and parameters.

    Where a stray `@`, `/`, `?` or `#` leaves open what is the password, none of it is shown.
    """
    if not is_plain(url):
        return "an address that is not shown (it does not have the form scheme://host:port/name)"
    authority, rest = _authority(url)
    return authority.rpartition("@")[2] + rest.partition("?")[0]


def is_plain(url: str) -> bool:
    """Tell whether a URL leaves no doubt which part of it is the password: then errors may name the others."""
    authority, rest = _authority(url)
    host = authority.rpartition("@")[2]
    good = re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%]+\])(:\d+)?(,[A-Za-z0-9._-]+(:\d+)?)*|", host)
    return bool(good and (host or rest.partition("?")[0]) and not re.search(r"[@#]", rest))


def _authority(url: str) -> tuple[str, str]:
    """Return what stands between a URL's scheme and its path, and all that follows."""
    rest = url.partition("://")[2]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    return authority, rest[len(authority) :]


_lock = threading.Lock()  # tools ask on a loop of their own
_used: dict[str, dict[str, None]] = {}  # by name, the values that this process has used; the last one last
_known = Mask()  # of them all; replaced as a whole: other threads mask meanwhile


def know(name: str, value: str | None, *, shortest: int = _SHORTEST) -> None:
    """Have `mask` replace *value* from now on: it came as a setting or a variable, not by `secret`."""
    if value is not None and len(value) >= shortest:
        _remember(name, value)


def know_environment() -> None:
    """Have `mask` know the variables of this process that are named like keys, tokens and passwords."""
    for name, value in os.environ.items():
        if _KEY_NAME.search(name):
            know(name, value, shortest=SHORTEST_KEY)


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

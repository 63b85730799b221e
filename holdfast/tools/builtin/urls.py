"""Which URLs a tool may ask: one parser, an allow-list, one look-up whose every address is checked.

The fetcher calls it before each request and each redirect. What passes is a `Target`: the parsed URL itself, which
the HTTP client is given, and the addresses that were checked, which are the only ones it can connect to. So neither a
second parser nor a second look-up can see something else.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.contracts import ApprovalPolicy
from holdfast.errors import ConfigurationError, ToolError
from holdfast.tools.builtin.addresses import Address, parse, why_refused

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["LOCAL_NAMES", "Resolve", "Target", "UrlGuard", "look_up", "split_entry"]

Resolve = Callable[[str, int], Awaitable[list[str]]]

_LONGEST = 4096
_PORTS = {"http": 80, "https": 443}
# The authority as it stands in the text: anything else is somebody's trick, or needs its ASCII form.
_AUTHORITY = re.compile(r"(?i)\A(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?(?=[/?#]|\Z)")
_NAME = re.compile(r"\A(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*\Z")
_NUMBER = re.compile(r"\A(0x[0-9a-f]*|[0-9]+)\Z")  # what inet_aton takes for part of an IPv4 address
LOCAL_NAMES = ("localhost", "local", "internal", "intranet", "lan", "home", "corp", "arpa", "onion")


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be asked, and the addresses it may be asked at."""

    url: URL
    host: str
    port: int
    addresses: tuple[Address, ...]

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: what a credential is bound to."""
        return self.url.scheme, self.host, self.port


async def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a name, by the system's resolver."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as exc:
        raise socket.gaierror(exc.errno, f"the name {host!r} cannot be looked up: {exc.strerror}") from exc
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def split_entry(entry: str) -> tuple[str, int | None]:
    """Split `host`, `host:port` or `[v6]:port` of a user's list."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:/@\s\[\]]+)(?::([0-9]{1,5}))?", entry)
    if match is None or (match[2] and not 0 < int(match[2]) < 65536):
        raise ConfigurationError(
            f"{entry!r} in a list of hosts is neither a host nor host:port. Write for example api.example.com, "
            "*.example.com or localhost:8080, without https:// and without a path."
        )
    return match[1].strip("[]").lower(), int(match[2]) if match[2] else None


class UrlGuard:
    """The URLs that one tool may ask.

    *allow* is `"*"` for any public host, or a list of `host`, `*.domain` (its subdomains) and `host:port`.
    *allow_local* names each `host:port` that may lie on this machine or a private network. *ports* need no mention.
    """

    def __init__(
        self,
        allow: str | Iterable[str] | None,
        *,
        allow_local: Iterable[str] = (),
        ports: Iterable[int] = (80, 443),
        resolve: Resolve = look_up,
    ) -> None:
        """Read the lists.

        Raises:
            ConfigurationError: an entry is none; the message says how to write it.

        """
        if isinstance(allow_local, str):
            raise ConfigurationError(f"allow_local is {allow_local!r}: give a list, such as ['localhost:8080'].")
        allow = () if allow is None else allow
        given = [] if allow == "*" else [allow] if isinstance(allow, str) else list(allow)
        self._any = allow == "*" or "*" in given
        self._allow = [split_entry(entry) for entry in given if entry != "*"]
        self._local = {split_entry(entry) for entry in allow_local}
        if any(port is None for _, port in self._local):
            raise ConfigurationError("each entry of allow_local needs its port, such as localhost:8080.")
        self._ports = frozenset(ports)
        self._resolve = resolve
        if not (self._any or self._allow or self._local):
            raise ConfigurationError(
                "no host is allowed: list the allowed hosts, such as ['api.example.com', '*.example.org']. '*' "
                "allows every public host; then a person must approve each call, unless you set approval='never'."
            )

    @property
    def hosts(self) -> frozenset[str]:
        """The hosts as they were named, without ports; `*` for every public one."""
        named = {host for host, _ in (*self._allow, *self._local)}
        return frozenset({*named, "*"} if self._any else named)

    @property
    def approval(self) -> ApprovalPolicy:
        """Whether a person is asked by default: with every host allowed, a URL takes data anywhere."""
        return "always" if self._any else "never"

    def knows(self, host: str, port: int | None) -> bool:
        """Tell whether a host may be asked; without a port, at any."""
        if any(host == name and port in (None, at) for name, at in self._local):
            return True
        ports = {port} if port is not None else {*self._ports, *(at for _, at in self._allow if at is not None)}
        return any(self._is_allowed(host, each) for each in ports)

    async def check(self, text: str) -> Target:
        """Return where *text* leads.

        Raises:
            ToolError: it may not be asked; nothing was sent.
            OSError: its name could not be looked up (`socket.gaierror`): nothing was sent.

        """
        url, host, port = self._parse(text)
        local = (host, port) in self._local
        literal = parse(host)
        if not local:
            self._check_name(host, port, literal)
        if literal is not None:
            found = [literal]
        else:
            found = [self._address(host, each) for each in await self._resolve(host, port)]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, f"{host} has no address")
        for address in found:
            self._check_address(host, address, local=local)
        return Target(url, host, port, tuple(found))

    def check_connection(self, target: Target, address: str) -> None:
        """Make sure, at the socket, that *address* is one of those that were checked.

        Raises:
            ToolError: it is not; no connection was made.

        """
        if parse(address) not in target.addresses:
            raise ToolError(
                f"{target.host} was about to be asked at {address}, which was not checked. Nothing was sent."
            )

    def _parse(self, text: str) -> tuple[URL, str, int]:
        from yarl import URL

        if len(text) > _LONGEST:
            raise ToolError(f"this URL has {len(text)} characters, more than {_LONGEST}")
        if any(ord(char) <= 32 or ord(char) == 127 or char == "\\" for char in text):
            raise ToolError("the URL has a space, a backslash or a control character: percent-encode it")
        match = _AUTHORITY.match(text)
        if match is None:
            raise ToolError(self._complaint(text))
        try:
            url = URL(text)
            host, port = (url.raw_host or "").lower(), url.port
        except ValueError as exc:
            raise ToolError(f"this is no URL: {exc}") from None
        plain = match[2].strip("[]").lower()
        same = parse(host) == parse(plain) if parse(plain) else host == plain
        if not same or port != int(match[3] or _PORTS[match[1].lower()]) or url.user or url.password or not port:
            raise ToolError("the host of this URL cannot be read in one way only: write it plainly")
        return url.with_fragment(None), host, port

    @staticmethod
    def _complaint(text: str) -> str:
        """Say what is wrong with the front of a URL."""
        scheme, mark, rest = text.partition("://")
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
        if not mark or scheme.lower() not in _PORTS:
            return "only http:// and https:// URLs can be asked"
        if "@" in authority:
            return "a URL may not hold a user name or password: credentials belong into the tool's declaration"
        if not authority.isascii():
            return "the host has letters outside ASCII: write its xn-- form"
        if "%" in authority:
            return "the host has a percent sign, as in an IPv6 zone or an encoded letter: write it plainly"
        return "the host or port of this URL is not valid: write https://host/path"

    def _check_name(self, host: str, port: int, literal: Address | None) -> None:
        if literal is None:
            parts = host.split(".")
            if host.endswith("."):
                raise ToolError(f"{host!r} ends with a dot: write it without")
            if _NUMBER.match(parts[-1]):
                raise ToolError(f"{host!r} is a number in disguise: an IPv4 address is written as four plain decimals")
            if not _NAME.match(host) or len(host) > 253:
                raise ToolError(f"{host[:100]!r} is no host name")
            if len(parts) == 1 or parts[-1] in LOCAL_NAMES:
                raise ToolError(f"{host!r} is a name of a local network. Only public hosts can be asked.")
        if not self._is_allowed(host, port):
            known = ", ".join(name if at is None else f"{name}:{at}" for name, at in self._allow[:20])
            what = f"{host}:{port}" if port not in self._ports else host
            allowed = f"hosts allowed here: {known}" if known else f"ports allowed here: {sorted(self._ports)}"
            raise ToolError(f"{what} is not allowed; {allowed}. Nothing was sent.")

    def _is_allowed(self, host: str, port: int) -> bool:
        for name, at in self._allow:
            if at != port and (at is not None or port not in self._ports):
                continue
            if name == host or (name.startswith("*.") and host.endswith(name[1:]) and len(host) > len(name) - 1):
                return True
        return self._any and port in self._ports

    @staticmethod
    def _address(host: str, text: str) -> Address:
        address = parse(text)
        if address is None:
            raise ToolError(f"{host} resolves to {text!r}, which is no address that can be checked. Nothing was sent.")
        return address

    @staticmethod
    def _check_address(host: str, address: Address, *, local: bool) -> None:
        kind = why_refused(address, private=local)
        if kind is not None:
            where = f"{host} is" if str(address) == host else f"{host} leads to"
            raise ToolError(f"{where} a {kind} address ({address}). Only public hosts can be asked; nothing was sent.")

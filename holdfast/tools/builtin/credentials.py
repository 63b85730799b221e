"""Which of a user's headers go to which host. `http_request` makes one; the fetcher asks it before each request.

The model chooses the URL, so a credential is bound to the host that the user named for it, and to nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from holdfast.errors import ConfigurationError, ToolError
from holdfast.secrets import Mask, has_secret, reveal, secret_names
from holdfast.tools.builtin.addresses import is_local, parse
from holdfast.tools.builtin.urls import LOCAL_NAMES, Target, UrlGuard, split_entry

__all__ = ["HostHeaders", "in_the_clear", "is_credential", "may_be_local"]

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_TELLING = re.compile(r"(?i)auth|cookie|token|secret|key|passw|session|credential|signature")
_EXAMPLE = 'headers={"api.example.com": {"Authorization": f"Bearer {secret(\'KEY\')}"}}'


def is_credential(name: str, value: str) -> bool:
    """Tell whether a header is a credential: it holds a secret, or its name says so."""
    return has_secret(value) or _TELLING.search(name) is not None


def may_be_local(host: str) -> bool:
    """Tell whether a host is on this machine or in a private network, as far as its name says."""
    address = parse(host)
    if address is not None:
        return is_local(address)
    parts = host.lower().rstrip(".").split(".")
    return len(parts) == 1 or parts[-1] in LOCAL_NAMES


def in_the_clear(url: str, headers: Mapping[str, str]) -> bool:
    """Tell whether a credential, in a header or in the URL, would be sent without encryption."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return False
    told = bool(parts.username or parts.password or has_secret(url) or _TELLING.search(parts.query))
    return told or any(is_credential(name, value) or "${" in value for name, value in headers.items())


class HostHeaders:
    """A user's headers by host: `host`, `host:port`, and for those that are no credentials `*.domain` and `*`."""

    def __init__(
        self, given: Mapping[str, str] | Mapping[str, Mapping[str, str]] | None, guard: UrlGuard, owner: str
    ) -> None:
        """Read the mapping; headers without a host are for the one host that *guard* allows.

        Raises:
            ConfigurationError: a header is none, its host is not allowed, or a credential would go to several hosts.

        """
        self._owner = owner
        self._by_host: list[tuple[str, int | None, dict[str, str]]] = []
        for entry, headers in self._mapping(given, guard).items():
            host, port = ("*", None) if entry == "*" else split_entry(entry)
            if not (host.startswith("*") or guard.knows(host, port)):
                raise ConfigurationError(
                    f"{owner}(headers=…): the host {entry!r} is not in the list of allowed hosts. Add it there, or "
                    "remove its headers."
                )
            for name, value in headers.items():
                if not _TOKEN.fullmatch(name) or not isinstance(value, str) or not value.isprintable():
                    raise ConfigurationError(
                        f"{owner}(headers=…): {name!r} or its value is not a valid HTTP header. Correct it."
                    )
                if host.startswith("*") and is_credential(name, value):
                    raise ConfigurationError(
                        f"{owner}(headers=…): {name} would be sent to every host that matches {entry!r}, and the "
                        "model chooses "
                        f"which one. Name its host: {_EXAMPLE}."
                    )
            self._by_host.append((host, port, dict(headers)))
        self._by_host.sort(key=lambda each: (each[0] != "*", not each[0].startswith("*"), each[1] is not None))
        every = [headers for _, _, headers in self._by_host]
        self.names = frozenset(name.lower() for headers in every for name in headers)
        self.secrets = frozenset(secret_names(every))
        values = [value for headers in every for name, value in headers.items() if is_credential(name, value)]
        self.hide = Mask(
            [part for value in values for part in (value, value.partition(" ")[2]) if not has_secret(part)]
        )
        """Takes credentials that stand in the declaration out of a text: some servers send back what they got."""

    def _mapping(
        self, given: Mapping[str, str] | Mapping[str, Mapping[str, str]] | None, guard: UrlGuard
    ) -> dict[str, dict[str, str]]:
        nested = [isinstance(value, Mapping) for value in (given or {}).values()]
        if not given:
            return {}
        if all(nested):
            return {host: dict(headers) for host, headers in given.items() if not isinstance(headers, str)}
        hosts = guard.hosts
        if any(nested) or len(hosts) != 1 or next(iter(hosts)).startswith("*"):
            raise ConfigurationError(
                f"{self._owner}(headers=…): more than one host is allowed, and the model chooses which one. State "
                "which host "
                f'gets each header: {_EXAMPLE}; "*" stands for all hosts, for headers that are not secret.'
            )
        return {next(iter(hosts)): {name: value for name, value in given.items() if isinstance(value, str)}}

    async def of(self, target: Target) -> dict[str, str]:
        """Return the headers for a request to *target*, with the values of secrets.

        Raises:
            MissingSecret: one is not set.
            ToolError: a credential would cross a network in the clear, or is no header; nothing was sent.

        """
        found: dict[str, str] = {}
        for host, port, headers in self._by_host:  # the most general first
            if _matches(host, port, target):
                found.update(headers)
        clear = target.url.scheme != "https" and not all(map(is_local, target.addresses))
        for name, value in found.items():
            if clear and is_credential(name, value):
                raise ToolError(
                    f"{target.host} gets the header {name}, which is sent over https:// only. Use https://. Nothing "
                    "was sent."
                )
        own = await reveal(found)
        for name, value in own.items():
            if not value.isprintable():
                raise ToolError(
                    f"the value of the secret in the header {name} cannot be sent in a header. Nothing was sent."
                )
        return own


def _matches(host: str, port: int | None, target: Target) -> bool:
    if port is not None and port != target.port:
        return False
    return host in ("*", target.host) or (host.startswith("*.") and target.host.endswith(host[1:]))

"""The class by which an agents file names an MCP server. Light: the protocol is loaded by workers alone."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

from holdfast.contracts import ApprovalPolicy, EffectClass
from holdfast.errors import ConfigurationError
from holdfast.secrets import reveal, secret_names
from holdfast.tools.builtin.credentials import in_the_clear, may_be_local
from holdfast.tools.source import ToolSource

__all__ = ["Endpoint", "MCPServer", "Protocol", "expand", "revealed", "tool_name"]

Protocol = Literal["auto", "2025-11-25", "2026-07-28"]

_NAME = re.compile(r"[A-Za-z0-9](?:_?[A-Za-z0-9-])*")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_INHERITED = ("PATH", "HOME", "LANG", "TERM")
_LONGEST = 64  # characters of a tool's name that every model provider takes
_EVERY = "*"


@dataclass(frozen=True)
class Endpoint:
    """How a server is reached. Two declarations of one name must have equal endpoints: they share a session."""

    name: str
    command: tuple[str, ...] = ()
    cwd: str | None = None
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    url: str | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    protocol: Protocol = "auto"
    connect_timeout: float = 30.0

    @property
    def shown(self) -> str:
        """Where it is, without what may be secret: no arguments, no user, no query."""
        if self.url is None:
            return self.command[0]
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def expand(values: Iterable[tuple[str, str]], what: str) -> dict[str, str]:
    """Return *values* with each `${NAME}` replaced by that environment variable.

    Raises:
        ConfigurationError: a variable is not set. Its name is told, no value ever is.

    """

    def value_of(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if found is None:
            raise ConfigurationError(f"{what}: the environment variable {match[1]} is not set where the worker runs.")
        return found

    return {name: _VARIABLE.sub(value_of, value) for name, value in values}


def inherited() -> dict[str, str]:
    """Return what of our own environment a server gets: enough to find programs and a home, no key of ours."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}


def tool_name(server: str, tool: str) -> str:
    """Return the name by which models call a server's tool: `server__tool`, at most 64 of A-Z a-z 0-9 _ -."""
    name = f"{server}__{re.sub(r'[^A-Za-z0-9_-]', '_', tool)}"
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST - 7]}_{hashlib.sha256(tool.encode()).hexdigest()[:6]}"
    return name


async def revealed(endpoint: Endpoint) -> Endpoint:
    """Return the endpoint with the values of variables, then of secrets: what looks like a variable in these stays.

    Raises:
        ConfigurationError: a variable or a secret is not set.

    """
    env = expand(endpoint.env, f"MCP server {endpoint.name!r}, env")
    headers = expand(endpoint.headers, f"MCP server {endpoint.name!r}, headers")
    return replace(
        endpoint,
        url=await reveal(endpoint.url),
        env=await reveal(tuple(env.items())),
        headers=await reveal(tuple(headers.items())),
    )


class MCPServer(ToolSource):
    """An MCP server whose tools an agent may call: `Agent(…, tools=[MCPServer("files", command=[…])])`.

    A worker connects when it starts. The tools are called `name__tool`. What the server says of them is pinned at first
    sight: when it says otherwise later, the tool is suspended until somebody accepts it (`holdfast mcp accept`).
    """

    kind = "MCP server"

    def __init__(
        self,
        name: str,
        *,
        command: Sequence[str] | None = None,
        url: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        headers: Mapping[str, str] | None = None,
        only: Iterable[str] | None = None,
        effects: Mapping[str, EffectClass] | None = None,
        keys: Mapping[str, str] | None = None,
        approval: Mapping[str, ApprovalPolicy] | Iterable[str] | None = None,
        timeout: float = 60.0,
        attempts: int = 3,
        connect_timeout: float = 30.0,
        protocol: Protocol = "auto",
    ) -> None:
        """Check and keep the declaration. Give either *command* or *url*.

        Tools are named below as the server names them, without the prefix; `"*"` stands for all others.

        Args:
            name: how the server is called here; the prefix of its tools.
            command: the program and its arguments; it speaks MCP on standard input and output.
            url: address of a server that speaks streamable HTTP.
            env: variables of the program beside PATH, HOME, LANG and TERM, which are all that it inherits.
            cwd: folder in which the program runs; default: the worker's.
            headers: sent with each request. `secret("NAME")` here and in *env*, or as `${NAME}` an environment
                variable, is replaced when connecting.
            only: tools to offer to the agent; None: all.
            effects: class of each tool, `once` unless named; `pure`, `keyed` or `once`. The server's own hints
                (readOnlyHint and such) are shown by `holdfast mcp list` and never believed.
            keys: for `keyed` tools the argument that takes the idempotency key. The model does not see it.
            approval: tools that ask a person first: names, or a mapping to `always` or `never`.
            timeout: seconds of one try, from start to result.
            attempts: tries before a repeated failure is told to the model.
            connect_timeout: seconds until the server must have started, agreed on a protocol and listed its tools.
            protocol: revision to speak; `auto` asks for 2026-07-28 and falls back to 2025-11-25 and older.

        Raises:
            ConfigurationError: something does not fit; the message says what and what to write instead.

        """
        if not isinstance(name, str) or len(name) > 32 or not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"MCP server {name!r}: use 1 to 32 of the characters A-Z a-z 0-9 _ - for its name, without `__`, "
                "because its tools are called name__tool."
            )
        self.name = name
        self._label = f"MCP server {name!r}"
        self.endpoint = self._endpoint(command, url, env, cwd, headers, protocol, connect_timeout)
        self.only = None if only is None else frozenset(self._names(only, "only"))
        self.effects = self._effects(effects or {}, keys or {})
        self.keys = dict(keys or {})
        self.approval = self._approval(approval)
        self.timeout = self._seconds("timeout", timeout)
        if not isinstance(attempts, int) or attempts < 1:
            raise ConfigurationError(f"{self._label}: attempts is {attempts!r}; use a whole number from 1.")
        self.attempts = attempts

    def __repr__(self) -> str:
        return f"<MCPServer {self.name} ({self.endpoint.shown})>"

    def offers(self, tool: str) -> bool:
        """Whether the agent may be given this tool."""
        return self.only is None or tool in self.only

    def effect_of(self, tool: str) -> EffectClass:
        """Return the class that was declared for a tool: `once` unless it was."""
        return self.effects.get(tool, self.effects.get(_EVERY, "once"))

    def approval_of(self, tool: str) -> ApprovalPolicy:
        """Return whether a tool asks a person first."""
        return self.approval.get(tool, self.approval.get(_EVERY, "never"))

    @property
    def secrets(self) -> frozenset[str]:
        """Names of the secrets that connecting needs."""
        return frozenset(secret_names([self.endpoint.url, self.endpoint.env, self.endpoint.headers]))

    @property
    def named(self) -> set[str]:
        """All tools that the declaration names; one that the server does not have is probably misspelt."""
        return {*(self.only or ()), *self.effects, *self.keys, *self.approval} - {_EVERY}

    # ------------------------------------------------------------------------------------ checks

    def _endpoint(
        self,
        command: Sequence[str] | None,
        url: str | None,
        env: Mapping[str, str] | None,
        cwd: str | os.PathLike[str] | None,
        headers: Mapping[str, str] | None,
        protocol: Protocol,
        connect_timeout: float,
    ) -> Endpoint:
        if (command is None) == (url is None):
            raise ConfigurationError(f"{self._label}: give either command=[…] or url='https://…'.")
        if protocol not in get_args(Protocol):
            raise ConfigurationError(f"{self._label}: protocol is {protocol!r}; use one of {get_args(Protocol)}.")
        patience = self._seconds("connect_timeout", connect_timeout)
        if command is not None:
            if isinstance(command, str) or not command or not all(isinstance(part, str) and part for part in command):
                raise ConfigurationError(
                    f'{self._label}: command is {command!r}; write a list: command=["npx", "-y", "package"]. '
                    "No shell reads it."
                )
            if secret_names(command):
                raise ConfigurationError(
                    f"{self._label}: command has a secret, and all users of a machine see the arguments of its "
                    "programs. Give it by env=."
                )
            if any("\0" in part for part in command):
                raise ConfigurationError(f"{self._label}: command has a NUL character.")
            if headers:
                raise ConfigurationError(f"{self._label}: headers belong to url=; a command takes env=.")
            return Endpoint(
                self.name,
                command=tuple(command),
                cwd=str(Path(cwd)) if cwd is not None else None,
                env=self._pairs(env, "env"),
                protocol=protocol,
                connect_timeout=patience,
            )
        assert url is not None
        if env or cwd is not None:
            raise ConfigurationError(f"{self._label}: env and cwd belong to command=; a url takes headers=.")
        parts = urlsplit(url) if isinstance(url, str) else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(f"{self._label}: its url must be http://host/path or https://host/path.")
        pairs = self._pairs(headers, "headers")
        for header, _ in pairs:
            if not _HEADER.fullmatch(header):
                raise ConfigurationError(f"{self._label}: {header!r} cannot be the name of an HTTP header.")
        assert parts.hostname is not None
        if in_the_clear(url, dict(pairs)) and not may_be_local(parts.hostname):
            raise ConfigurationError(
                f"{self._label}: its credentials would cross the network unencrypted. Use https://; http:// is "
                "allowed only for "
                "servers on this machine or in a private network."
            )
        return Endpoint(self.name, url=url, headers=pairs, protocol=protocol, connect_timeout=patience)

    def _pairs(self, given: Mapping[str, str] | None, what: str) -> tuple[tuple[str, str], ...]:
        if given is None:
            return ()
        good = isinstance(given, Mapping) and all(
            isinstance(key, str) and key and isinstance(value, str) and not {"\0", "\n", "\r"} & {*key, *value}
            for key, value in given.items()
        )
        if not good:
            raise ConfigurationError(f'{self._label}: {what} must be a dict of text: {what}={{"NAME": "value"}}.')
        return tuple(sorted(given.items()))

    def _names(self, given: Iterable[str], what: str) -> list[str]:
        names = [given] if isinstance(given, str) else list(given)
        if isinstance(given, str) or not all(isinstance(name, str) and name for name in names):
            raise ConfigurationError(f"{self._label}: {what} must be a list of the server's tools, not {given!r}.")
        return names

    def _effects(self, effects: Mapping[str, EffectClass], keys: Mapping[str, str]) -> dict[str, EffectClass]:
        self._names(effects, "effects")
        for tool, effect in effects.items():
            if effect not in ("pure", "keyed", "once"):
                raise ConfigurationError(
                    f"{self._label}: the effect of {tool!r} is {effect!r}; a server's tool can be `pure` (it changes "
                    "nothing), `keyed` (with keys=) or `once`. Wrap the call in a @tool of your own for the others."
                )
            if effect == "keyed" and tool not in keys:
                raise ConfigurationError(
                    f"{self._label}: {tool!r} is `keyed`, so the server must be sent the key: name the argument that "
                    f'takes it, keys={{"{tool}": "idempotency_key"}}.'
                )
        for tool in self._names(keys, "keys"):
            if effects.get(tool) != "keyed":
                raise ConfigurationError(f'{self._label}: keys names {tool!r}, which effects does not call "keyed".')
        return dict(effects)

    def _approval(self, given: Mapping[str, ApprovalPolicy] | Iterable[str] | None) -> dict[str, ApprovalPolicy]:
        if given is None:
            return {}
        policies: dict[str, ApprovalPolicy] = {}
        if isinstance(given, Mapping):
            policies.update(given)
        else:
            policies.update((name, "always") for name in self._names(given, "approval"))
        for tool, policy in policies.items():
            if policy not in get_args(ApprovalPolicy):
                raise ConfigurationError(
                    f"{self._label}: the approval of {tool!r} is {policy!r}; use one of {get_args(ApprovalPolicy)}."
                )
        return policies

    def _seconds(self, what: str, value: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise ConfigurationError(f"{self._label}: {what} is {value!r}; use a number of seconds over 0.")
        return float(value)

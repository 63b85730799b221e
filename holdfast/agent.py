"""The class a user writes down an agent with. Part of the public API; the registry and the runtime read it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import ValidationError

from holdfast.contracts import AgentDefinition, Budget
from holdfast.errors import ConfigurationError, ToolError
from holdfast.ids import canonical_json
from holdfast.tools.source import ToolSource
from holdfast.tools.tool import AnyTool
from holdfast.tools.toolset import Toolset

__all__ = ["Agent", "definition_hash"]

_HINTS = {
    "name": "use 1 to 128 of the characters A-Z a-z 0-9 . _ -",
    "model": 'use a name LiteLLM knows, such as "openai/gpt-5-mini", or "offline/extractive"',
    "instructions": "use text",
    "budget": "use Budget(usd=…, rounds=…, tokens=…)",
    "window": "use a number of tokens, at least 256, or None for what the model takes",
    "memory": "use True or False",
    "params": "use a dict with text keys and JSON values; it is passed on to the model",
}


class Agent:
    """A model with instructions, tools and a budget. Does nothing by itself: workers run it."""

    def __init__(
        self,
        name: str,
        model: str,
        instructions: str = "",
        tools: Iterable[AnyTool | ToolSource | Callable[..., Any] | Iterable[Any]] = (),
        budget: Budget | None = None,
        memory: bool = False,
        window: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        max_tokens: int | None = None,
        api_base: str | None = None,
        params: dict[str, Any] | None = None,
    ) -> None:
        """Check and keep the definition.

        Args:
            name: how it is called in commands and messages.
            model: `provider/model`, anything LiteLLM knows, or `offline/extractive`.
            instructions: the system prompt.
            tools: what `@tool` made; plain functions become `once` tools, lists of tools are opened. An MCPServer
                stands for the tools of that server.
            budget: what one run may spend; unset, 50 rounds.
            memory: recall before a run and remember after it, and add the tools `remember` and `recall`.
            window: tokens of conversation sent to the model; None: what it takes.
            temperature: passed to the model if set.
            seed: passed to the model if set.
            max_tokens: longest reply, in tokens.
            api_base: base URL of an OpenAI-compatible server for this agent.
            params: anything else to pass to the model; JSON values.

        Raises:
            ConfigurationError: something does not fit; the message says what and what to write instead.

        """
        label = f"agent {name!r}"
        try:
            self._tools = Toolset(tools)
            self._sources = tuple(self._tools.sources)
            self._equipped: list[AnyTool] = []
            if memory:
                from holdfast.tools.builtin.longterm import recall, remember

                missing = [item for item in (remember, recall) if item.name not in self._tools]
                self._tools = Toolset([*self._tools.values(), *missing])
        except ConfigurationError as exc:
            raise ConfigurationError(f"{label}: {exc}") from None
        if not isinstance(model, str) or not model.strip():
            raise ConfigurationError(f"{label}: model is {model!r}; {_HINTS['model']}.")
        if budget is not None and not isinstance(budget, Budget):
            raise ConfigurationError(f"{label}: budget is {budget!r}; {_HINTS['budget']}.")
        if api_base is not None and not str(api_base).startswith(("http://", "https://")):
            raise ConfigurationError(f"{label}: api_base is {api_base!r}; it must start with http:// or https://.")
        if not isinstance(memory, bool):
            raise ConfigurationError(f"{label}: memory is {memory!r}; {_HINTS['memory']}.")
        given: dict[str, Any] = {
            "name": name,
            "model": model,
            "instructions": instructions,
            "tools": self._tools.definitions,
            "budget": budget or Budget(),
            "memory": memory,
            "window": window,
            "temperature": temperature,
            "seed": seed,
            "max_tokens": max_tokens,
            "api_base": api_base,
            "params": {} if params is None else params,
        }
        try:
            self._definition = AgentDefinition.model_validate(given)
        except ValidationError as exc:
            lines = []
            for error in exc.errors():
                field = str(error["loc"][0])
                hint = f"; {_HINTS[field]}" if field in _HINTS else f": {error['msg']}"
                lines.append(f"{field} is {error['input']!r:.200}{hint}")
            raise ConfigurationError(f"{label}: " + ". ".join(lines) + ".") from None
        try:
            definition_hash(self._definition)
        except (TypeError, ValueError, RecursionError) as exc:
            raise ConfigurationError(
                f"{label}: its definition cannot be written as JSON ({exc}). Look for values in params that are not "
                "JSON, numbers that are not finite, and broken characters."
            ) from None

    @property
    def name(self) -> str:
        """How it is called in commands and messages."""
        return self._definition.name

    @property
    def definition(self) -> AgentDefinition:
        """The agent as runs know it: stored once by its hash."""
        return self._definition

    @property
    def tools(self) -> Toolset:
        """Its tools by name."""
        return self._tools

    @property
    def sources(self) -> tuple[ToolSource, ...]:
        """What of its tools is known only where a worker runs, such as MCP servers."""
        return self._sources

    def equip(self, tools: Iterable[AnyTool]) -> None:
        """Have *tools* from now on for those of its sources, in place of any it was equipped with before.

        Raises:
            ConfigurationError: one has the name of another tool. Nothing was changed.

        """
        given = list(tools)
        own = [tool for tool in self._tools.values() if not any(tool is old for old in self._equipped)]
        try:
            together = Toolset([*own, *given])
        except ConfigurationError as exc:
            raise ConfigurationError(f"agent {self.name!r}: {exc}") from None
        self._definition = self._definition.model_copy(update={"tools": together.definitions})
        self._tools, self._equipped = together, given

    def tool(self, name: str) -> AnyTool:
        """Return the tool called *name*.

        Raises:
            ToolError: there is none; the message is fit for the model to see.

        """
        try:
            return self._tools[name]
        except KeyError:
            known = ", ".join(self._tools) or "none"
            raise ToolError(f"there is no tool {name[:128]!r}; there are: {known}") from None

    def __repr__(self) -> str:
        return f"<Agent {self.name} ({self._definition.model}, {len(self._tools)} tools)>"


def definition_hash(definition: AgentDefinition) -> str:
    """Return the hash a definition is stored under: 64 hex digits of SHA-256 over its canonical JSON."""
    return hashlib.sha256(
        canonical_json(definition.model_dump(mode="json", exclude_defaults=False)).encode()
    ).hexdigest()

"""The class a user writes down an agent with. Part of the public API; the registry and the runtime read it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from holdfast.contracts import AgentDefinition, AnswerDefinition, ApprovalPolicy, Budget, Price
from holdfast.errors import ConfigurationError, ToolError
from holdfast.ids import canonical_json
from holdfast.llm.prices import is_pricing
from holdfast.secrets import has_secret
from holdfast.tools.agents import AgentTool, agent_tool, hand_off_tool
from holdfast.tools.source import ToolSource
from holdfast.tools.tool import AnyTool
from holdfast.tools.toolset import Toolset

if TYPE_CHECKING:
    from holdfast.typed.answers import AnswerType

__all__ = ["Agent", "definition_hash"]

_HINTS = {
    "name": "use 1 to 128 of the characters A-Z a-z 0-9 . _ -",
    "model": 'use a name LiteLLM knows, such as "openai/gpt-5-mini", or "offline/extractive"',
    "instructions": "use text",
    "budget": "use Budget(usd=…, rounds=…, tokens=…)",
    "window": "use a number of tokens, at least 256, or None for what the model takes",
    "memory": "use True or False",
    "price": "use price=Price(input=…, output=…), in US dollars per million tokens",
    "params": "use a dict with text keys and JSON values; it is passed on to the model",
    "corrections": "use a number from 0 to 10",
    "native_output": "use True, False, or None for what LiteLLM knows of the model",
}


class Agent:
    """A model with instructions, tools and a budget. Does nothing by itself: workers run it."""

    def __init__(
        self,
        name: str,
        model: str,
        instructions: str = "",
        tools: Iterable[AnyTool | ToolSource | Agent | Callable[..., Any] | Iterable[Any]] = (),
        budget: Budget | None = None,
        memory: bool = False,
        window: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        max_tokens: int | None = None,
        api_base: str | None = None,
        params: dict[str, Any] | None = None,
        output: Any = None,
        corrections: int = 2,
        native_output: bool | None = None,
        description: str = "",
        handoffs: Iterable[Agent | str] = (),
        price: Price | None = None,
    ) -> None:
        """Check and keep the definition.

        Args:
            name: how it is called in commands and messages.
            model: `provider/model`, anything LiteLLM knows, or `offline/extractive`.
            instructions: the system prompt.
            tools: what `@tool` made; plain functions become `once` tools, lists of tools are opened. An MCPServer
                stands for the tools of that server, another agent for a tool that asks it (see `as_tool`).
            budget: what one run may spend; unset, 50 rounds.
            memory: recall the thread's memories before a run and store new ones after it; also add the tools
                `remember` and `recall`.
            window: tokens of conversation sent to the model; None: what it takes.
            temperature: passed to the model if set.
            seed: passed to the model if set.
            max_tokens: longest reply, in tokens.
            api_base: base URL of an OpenAI-compatible server for this agent.
            params: anything else to pass to the model; JSON values. `secret("NAME")` in them, such as for `api_key`,
                and in *api_base* is replaced at each call.
            output: the type of the final answer: a pydantic model, a dataclass, a TypedDict, or a Literal, union or
                list of such. None: text.
            corrections: how often the model may correct an answer that is not of that type; each is a round.
            native_output: whether to ask by the provider's own means; None: where LiteLLM knows that it has them.
            description: what it can do, for agents that may ask it or hand over to it.
            handoffs: agents, or names of agents defined later, that may take the conversation over; for each there is a
                tool `hand_off_to_…`.
            price: price of the model's tokens for this agent: `Price(input=0.25, output=2.00)`, in USD per million.
                None: the price in LiteLLM's table. A budget in USD needs a known price.

        Raises:
            ConfigurationError: something does not fit; the message says what and what to write instead.

        """
        label = f"agent {name!r}"
        try:
            self._tools = Toolset(tools)
            self._tools = Toolset([*self._tools.values(), *_hand_offs(handoffs)], sources=self._tools.sources)
            self._sources = tuple(self._tools.sources)
            self._equipped: dict[str, list[AnyTool]] = {}
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
        if api_base is not None and not str(api_base).startswith(("http://", "https://", "${secret:")):
            raise ConfigurationError(f"{label}: api_base is {api_base!r}; it must start with http:// or https://.")
        if has_secret(instructions) or has_secret(description):
            raise ConfigurationError(
                f"{label}: a secret stands in its instructions or description, which models are told. Give it to the "
                "tool that needs it."
            )
        if not isinstance(memory, bool):
            raise ConfigurationError(f"{label}: memory is {memory!r}; {_HINTS['memory']}.")
        _check_prices(label, price, params)
        self._answers = self._typed(label, output, model)
        given: dict[str, Any] = {
            "name": name,
            "description": description,
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
            "output": self._answer_definition(label, corrections, native_output),
            "price": price,
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

    @staticmethod
    def _typed(label: str, output: Any, model: str) -> AnswerType[Any] | None:
        if output is None:
            return None
        from holdfast.typed.answers import AnswerType

        if model.strip().startswith("offline/"):
            raise ConfigurationError(
                f"{label}: {model} quotes what tools return and cannot give typed answers. Name a model, or leave out "
                "output."
            )
        try:
            return AnswerType(output)
        except ConfigurationError as exc:
            raise ConfigurationError(f"{label}: {exc}") from None

    def _answer_definition(self, label: str, corrections: int, native: bool | None) -> AnswerDefinition | None:
        fits = isinstance(corrections, int) and not isinstance(corrections, bool) and 0 <= corrections <= 10
        if not fits:
            raise ConfigurationError(f"{label}: corrections is {corrections!r}; {_HINTS['corrections']}.")
        if native not in (None, True, False):
            raise ConfigurationError(f"{label}: native_output is {native!r}; {_HINTS['native_output']}.")
        if self._answers is None:
            return None
        return self._answers.definition(corrections=corrections, native=native)

    @property
    def answers(self) -> AnswerType[Any] | None:
        """The type of its final answers; None: text."""
        return self._answers

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

    def equip(self, tools: Iterable[Any], by: str = "MCP server") -> None:
        """Have *tools* from now on for its sources of the kind *by*, in place of any it was equipped with for those.

        Raises:
            ConfigurationError: one has the name of another tool. Nothing was changed.

        """
        before = self._equipped.get(by, [])
        own = [tool for tool in self._tools.values() if not any(tool is old for old in before)]
        try:
            given = list(Toolset(tools).values())
            together = Toolset([*own, *given])
        except ConfigurationError as exc:
            raise ConfigurationError(f"agent {self.name!r}: {exc}") from None
        self._definition = self._definition.model_copy(update={"tools": together.definitions})
        self._tools = together
        self._equipped[by] = given

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

    def as_tool(
        self,
        name: str | None = None,
        description: str | None = None,
        approval: ApprovalPolicy = "never",
        input: type[BaseModel] | None = None,  # noqa: A002
    ) -> AgentTool:
        """Return a tool by which another agent asks this one; among `tools`, the agent itself stands for `as_tool()`.

        Args:
            name: name of the tool; unset, the agent's.
            description: what the asking model is told; unset, the agent's own, else the first line of its instructions.
            approval: `always` asks a person before each call.
            input: a pydantic model of what it is asked, passed on as JSON; unset, one text, `message`.

        Raises:
            ConfigurationError: something does not fit; the message says what.

        """
        said = description or self._definition.description
        if not said:
            first = next(iter(self._definition.instructions.strip().splitlines()), "")[:300]
            said = f"Ask the agent {self.name}, which works by itself and answers. {first}".strip()
        return agent_tool(self.name, name=name, description=said, approval=approval, input=input)

    def __repr__(self) -> str:
        return f"<Agent {self.name} ({self._definition.model}, {len(self._tools)} tools)>"


def _check_prices(label: str, price: object, params: object) -> None:
    if price is not None and not isinstance(price, Price):
        raise ConfigurationError(f"{label}: price is {price!r}; {_HINTS['price']}.")
    pricing = [str(name) for name in params if is_pricing(str(name))] if isinstance(params, dict) else []
    if pricing:
        raise ConfigurationError(
            f"{label}: params contains {', '.join(pricing)}, a price that LiteLLM would use for every agent in the "
            "process; "
            f"{_HINTS['price']}."
        )


def _hand_offs(agents: Iterable[Agent | str]) -> list[AgentTool]:
    if isinstance(agents, str | Agent):
        raise ConfigurationError(f"handoffs is {agents!r}; write a list: handoffs=[…].")
    made = []
    for each in agents:
        if isinstance(each, Agent):
            made.append(hand_off_tool(each.name, each.definition.description))
        elif isinstance(each, str):
            made.append(hand_off_tool(each))
        else:
            raise ConfigurationError(f"handoffs has {each!r}; give agents, or names of agents.")
    return made


def definition_hash(definition: AgentDefinition) -> str:
    """Return the hash a definition is stored under: 64 hex digits of SHA-256 over its canonical JSON."""
    return hashlib.sha256(
        canonical_json(definition.model_dump(mode="json", exclude_defaults=False)).encode()
    ).hexdigest()

"""Agents among an agent's tools: one that is asked and answers, one that takes the conversation over.

`Agent` and `Toolset` make these; users call `Agent.as_tool`, or `agent_tool` for an agent that is defined later.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ValidationError

from holdfast.contracts import ApprovalPolicy, ToolDefinition
from holdfast.errors import ConfigurationError, ToolArgumentsInvalid, ToolError
from holdfast.tools.context import ToolContext
from holdfast.tools.schema import Signature, read_signature
from holdfast.tools.tool import Tool

__all__ = ["AgentTool", "agent_tool", "hand_off_tool"]

_ODD = re.compile(r"[^A-Za-z0-9_-]")
_AGENT = re.compile(r"[A-Za-z0-9._-]{1,128}")  # as agents may be called
_LONGEST = 64  # characters of a tool's name, by all providers


class AgentTool(Tool[..., Any]):
    """A tool that is carried out by another agent. It has no body: the workflow starts that agent's own.

    Attributes:
        agent: name of the other agent.

    """

    def __init__(
        self,
        agent: str,
        *,
        name: str,
        description: str,
        approval: ApprovalPolicy = "never",
        input: type[BaseModel] | None = None,  # noqa: A002  # what the other agent is given: no better word
        handoff: bool = False,
    ) -> None:
        """Make the tool; see `agent_tool`.

        Raises:
            ConfigurationError: name or input cannot be used.

        """
        if not isinstance(agent, str) or not _AGENT.fullmatch(agent):
            raise ConfigurationError(
                f"{agent!r} is no name of an agent: use 1 to 128 of the characters A-Z a-z 0-9 . _ -"
            )
        self.agent = agent
        self.is_async = True
        self.context = self.lookup = self.routed = None
        self._input = input
        self._signature = _signature(handoff)
        if input is not None and not (isinstance(input, type) and issubclass(input, BaseModel)):
            raise ConfigurationError(f"{agent} as a tool: input is {input!r}; give a pydantic model, or leave it out.")
        schema = self._signature.parameters if input is None else _plain_schema(input)
        try:
            self._definition = ToolDefinition(
                name=name,
                description=description,
                parameters=schema,
                effect="pure",
                approval=approval,
                agent=agent,
                handoff=handoff,
            )
        except ValidationError:
            raise ConfigurationError(
                f"{agent} as a tool cannot be called {name!r}: use 1 to {_LONGEST} of the characters A-Z a-z 0-9 _ -, "
                "as in as_tool(name=…)."
            ) from None
        self.__name__ = name
        self.__doc__ = description
        self.function = self._body

    async def _body(self, **_: Any) -> Any:
        raise ToolError(f"{self.name} is another agent: it is asked within a run, and cannot be called as a function")

    def validate(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return a model's *args* if they fit.

        Raises:
            ToolArgumentsInvalid: they do not; the message tells the model how to mend each one.

        """
        if self._input is None:
            return self._signature.validate(args)
        try:
            self._input.model_validate(args)
        except ValidationError as exc:
            wrong = "; ".join(
                f"{'.'.join(str(part) for part in error['loc']) or 'arguments'}: {error['msg']}"
                for error in exc.errors()[:20]
            )
            raise ToolArgumentsInvalid(f"{self.name} was not called: {wrong}. Mend them and call again.") from None
        return args

    def bind(self, args: dict[str, Any], ctx: ToolContext) -> dict[str, Any]:
        """Return validated *args*; there is no function that takes a context."""
        del ctx
        return dict(args)


def _signature(handoff: bool) -> Signature:
    def ask(message: str) -> None:
        """Ask.

        Args:
            message: The whole task or question. The other agent sees nothing but this.

        """

    def hand_off(note: str = "") -> None:
        """Hand off.

        Args:
            note: What the other agent should know that the conversation does not say.

        """

    return read_signature(hand_off if handoff else ask, name="hand_off" if handoff else "ask", local={})


def _plain_schema(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    schema.pop("title", None)
    schema.setdefault("properties", {})
    return schema


def agent_tool(
    agent: str,
    *,
    description: str,
    name: str | None = None,
    approval: ApprovalPolicy = "never",
    input: type[BaseModel] | None = None,  # noqa: A002
) -> AgentTool:
    """Return a tool that asks the agent of this name; the workers must know it by the time it is asked.

    Args:
        agent: name of the other agent.
        description: what it can do, for the model that may ask it.
        name: name of the tool; unset, the agent's.
        approval: `always` asks a person before each call.
        input: a pydantic model of what it is asked, passed on as JSON; unset, one text, `message`.

    Raises:
        ConfigurationError: something does not fit; the message says what.

    """
    return AgentTool(
        agent, name=name or _ODD.sub("_", agent)[:_LONGEST], description=description, approval=approval, input=input
    )


def hand_off_tool(agent: str, description: str = "") -> AgentTool:
    """Return the tool by which a conversation moves to the agent of this name."""
    about = f" {description}" if description else ""
    name = f"hand_off_to_{_ODD.sub('_', agent)}"
    if len(name) > _LONGEST:
        raise ConfigurationError(f"{agent[:140]!r} is too long a name to hand over to: use at most 52 characters")
    return AgentTool(
        agent,
        name=name,
        description=f"Hand this conversation over to the agent {agent}, who speaks from then on.{about}",
        handoff=True,
    )

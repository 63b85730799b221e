"""A tool of an MCP server, as one more kind of tool. `rack.py` makes them; agents and activities use them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from holdfast.contracts import ToolDefinition
from holdfast.mcp.arguments import ArgumentCheck, without
from holdfast.mcp.server import MCPServer, tool_name
from holdfast.memory.pins import Offer
from holdfast.tools.context import ToolContext
from holdfast.tools.tool import Tool

__all__ = ["Call", "MCPTool"]

Call = Callable[[MCPServer, str, dict[str, Any], ToolContext], Awaitable[Any]]


class MCPTool(Tool[..., Any]):
    """A tool whose body is a call of a server. What models read of it is what was pinned."""

    def __init__(self, server: MCPServer, pin: Offer, call: Call) -> None:
        """Make the tool from its declaration and its pin; *call* runs on the tool loop."""
        self.server = server
        self.remote_name = pin.tool
        self.is_async = True
        self.context = "ctx"
        self.lookup = None
        self.routed = None
        self._call = call
        self._key = server.keys.get(pin.tool)
        schema = without(pin.schema, self._key) if self._key is not None else dict(pin.schema)
        name = tool_name(server.name, pin.tool)
        self._check_arguments = ArgumentCheck(name, schema)
        schema.pop("$schema", None)
        schema.setdefault("properties", {})
        self._definition = ToolDefinition(
            name=name,
            description=pin.description,
            parameters=schema,
            effect=server.effect_of(pin.tool),
            approval=server.approval_of(pin.tool),
            timeout=server.timeout,
            attempts=server.attempts,
        )
        self.__name__ = name
        self.__doc__ = pin.description
        self.function = self._body

    async def _body(self, *, args: dict[str, Any], ctx: ToolContext) -> Any:
        if self._key is not None:
            args = {**args, self._key: ctx.idempotency_key}
        return await self._call(self.server, self.remote_name, args, ctx)

    def validate(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return a model's *args* if they fit the pinned schema.

        Raises:
            ToolArgumentsInvalid: they do not; the message tells the model how to mend each one.

        """
        return self._check_arguments(args)

    def bind(self, args: dict[str, Any], ctx: ToolContext) -> dict[str, Any]:
        """Return validated *args* as those of the body."""
        return {"args": dict(args), "ctx": ctx}

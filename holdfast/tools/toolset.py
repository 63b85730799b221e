"""Tools by name. Agents hold one; nobody else needs to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from holdfast.contracts import ToolDefinition
from holdfast.errors import ConfigurationError
from holdfast.tools.source import ToolSource
from holdfast.tools.tool import AnyTool, Tool

__all__ = ["AsksAgent", "Toolset", "makes_tools"]

F = TypeVar("F", bound=Callable[..., Any])


class AsksAgent(Protocol):
    """What stands for a tool that asks it: an agent."""

    def as_tool(self) -> AnyTool:
        """Return the tool."""
        ...


def makes_tools(factory: F) -> F:
    """Mark a function that returns tools, so that an agent given the function itself is told to call it."""
    factory.makes_tools = True  # type: ignore[attr-defined]
    return factory


class Toolset(Mapping[str, AnyTool]):
    """Tools by name, in the order given. Plain functions become `once` tools; lists of tools are opened."""

    def __init__(
        self,
        tools: Iterable[AnyTool | ToolSource | AsksAgent | Callable[..., Any] | Iterable[Any]] = (),
        *,
        sources: Iterable[ToolSource] = (),
    ) -> None:
        """Take the *tools*, and *sources* that another set had.

        Raises:
            ConfigurationError: one is no tool, or two have one name.

        """
        self._tools: dict[str, AnyTool] = {}
        self.sources: list[ToolSource] = list(sources)
        """What has tools of its own once a worker runs; they are not among these."""
        self._add(tools, nested=False)

    def _add(self, tools: Any, *, nested: bool) -> None:
        if isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Iterable):
            raise ConfigurationError(f"tools must be a list of tools, not {tools!r}. Write tools=[…].")
        for item in tools:
            if isinstance(item, list | tuple) and not nested:
                self._add(item, nested=True)  # tools=[files("docs"), refund]
                continue
            if isinstance(item, ToolSource):
                self.sources.append(item)
                continue
            if callable(as_tool := getattr(item, "as_tool", None)):  # an Agent: this module may not know the class
                item = as_tool()
            if getattr(item, "makes_tools", False):
                name = getattr(item, "__name__", item)
                raise ConfigurationError(f"{name} makes tools and is none: call it, tools=[{name}(…)].")
            if not isinstance(item, Tool) and not callable(item):
                raise ConfigurationError(f"{item!r} is no tool: give functions, or what @tool made of them.")
            made: AnyTool = item if isinstance(item, Tool) else Tool(item)
            if made.name in self._tools:
                raise ConfigurationError(
                    f"two tools are called {made.name!r}, and a model could not tell them apart. Rename one with "
                    "@tool(name=…), or for a second folder of files with files(root, prefix=…)."
                )
            self._tools[made.name] = made

    def __getitem__(self, name: str) -> AnyTool:
        return self._tools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)

    @property
    def definitions(self) -> list[ToolDefinition]:
        """The tools as the model and the policies see them, in order."""
        return [item.definition for item in self._tools.values()]

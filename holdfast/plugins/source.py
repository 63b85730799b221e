"""Stands among an agent's tools for those that a plugin gives it once a worker runs. Agents files name it."""

from __future__ import annotations

from holdfast.errors import ConfigurationError
from holdfast.tools.source import ToolSource

__all__ = ["PluginTools", "plugin_tools"]


class PluginTools(ToolSource):
    """The tools of a plugin; made by `plugin_tools`."""

    kind = "plugin"

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<PluginTools {self.name}>"


def plugin_tools(name: str) -> PluginTools:
    """Return what stands for the tools of the plugin called *name*: `Agent(…, tools=[plugin_tools("crm")])`.

    Raises:
        ConfigurationError: that is no name. Whether there is such a plugin, a worker sees when it starts.

    """
    if not isinstance(name, str) or not name.strip():
        raise ConfigurationError(f"plugin_tools({name!r}): give the name of a plugin; `holdfast plugins` lists them.")
    return PluginTools(name)

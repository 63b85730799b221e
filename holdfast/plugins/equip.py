"""What plugins and secrets need of a worker's agents before it polls: their tools, and values for what they name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import structlog

from holdfast.errors import ConfigurationError, SecretUnavailable
from holdfast.plugins.host import Host
from holdfast.plugins.source import PluginTools
from holdfast.secrets import Secrets, mask, secret_names

if TYPE_CHECKING:
    from holdfast.agent import Agent

__all__ = ["check_secrets", "equip", "needed_secrets"]

log = structlog.get_logger(__name__)


async def equip(agents: Mapping[str, Agent], host: Host) -> None:
    """Give agents the tools of the plugins that they name.

    Raises:
        ConfigurationError: there is no such plugin, a required one fails, or what it gives are no tools.

    """
    for agent in agents.values():
        wanted = [source for source in agent.sources if isinstance(source, PluginTools)]
        given: list[object] = []
        for source in wanted:
            plugin = next((each for each in host.of("tools") if each.name == source.name), None)
            if plugin is None:
                raise ConfigurationError(
                    f"agent {agent.name!r} wants the tools of the plugin {source.name!r}, and no plugin of that name "
                    "gives tools here. `holdfast plugins` lists those there are."
                )
            try:
                given += await host.tools(plugin, agent.name)
            except Exception as exc:
                said = mask(f"{type(exc).__name__}: {exc}")
                if plugin.required:
                    raise ConfigurationError(
                        f"the plugin {plugin.name} is required and gives no tools to agent {agent.name!r}: {said}"
                    ) from exc
                log.error("a plugin gives no tools", plugin=plugin.name, agent=agent.name, error=said)
        if wanted:
            agent.equip(given, by=PluginTools.kind)


def needed_secrets(agents: Iterable[Agent]) -> dict[str, set[str]]:
    """Return the secrets that agents, their tools and their servers name, with the agents that do."""
    needed: dict[str, set[str]] = {}
    for agent in agents:
        names = secret_names([agent.definition.api_base, agent.definition.params])
        for part in (*agent.tools.values(), *agent.sources):
            names |= getattr(part, "secrets", frozenset())
        for name in names:
            needed.setdefault(name, set()).add(agent.name)
    return needed


async def check_secrets(agents: Iterable[Agent], secrets: Secrets) -> None:
    """See that each secret has a value.

    Raises:
        ConfigurationError: some have none; the message names them, who needs them, and how to set them.

    """
    needed = needed_secrets(agents)
    problems = []
    for name in sorted(needed):
        try:
            missing = await secrets.missing([name])
        except SecretUnavailable as exc:  # its calls will tell; an outage shall keep nobody from starting
            log.warning("a secret could not be looked up", secret=name, error=str(exc))
            continue
        problems += [f"{', '.join(sorted(needed[name]))}: {problem}" for problem in missing]
    if problems:
        raise ConfigurationError(
            "agents need secrets that are not set.\n" + "\n".join(f"- {each}" for each in problems)
        )

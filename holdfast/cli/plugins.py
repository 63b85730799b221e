"""`holdfast plugins`: which plugins a worker would use, in which order, and which secrets its agents need."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from holdfast.cli.say import console as new_console
from holdfast.cli.say import say
from holdfast.cli.text import clean

if TYPE_CHECKING:
    from holdfast.plugins.load import Found
    from holdfast.settings import Settings

__all__ = ["show"]


def show(settings: Settings, *, as_json: bool) -> None:
    """Load plugins and agents as a worker would, start none of them, and say what there is.

    Raises:
        ConfigurationError: the agents file or a plugin that must be there does not load.

    """
    from holdfast.plugins.equip import needed_secrets
    from holdfast.plugins.load import find_plugins
    from holdfast.tools.registry import Agents, load_agents

    agents = load_agents(settings.agents) if settings.agents.is_file() else Agents()
    found = find_plugins(settings, agents.plugins)
    kept = any("secret" in each.hooks for each in found)
    secrets: list[dict[str, Any]] = [
        {"name": name, "agents": sorted(used), "set": _is_set(name, elsewhere=kept)}
        for name, used in sorted(needed_secrets(agents.values()).items())
    ]
    if as_json:
        from holdfast.cli.follow import print_json

        print_json({"plugins": [_as_json(each) for each in found], "secrets": secrets})
        return
    if not found and not secrets:
        say("no plugins: none is installed, and the agents file has no list `plugins`")
        return
    console = new_console()
    table = Table.grid(padding=(0, 2))
    for each in found:
        table.add_row(*_row(each))
    for secret in secrets:
        word, style = _STATES[secret["set"]]
        table.add_row(
            Text("$"), Text(secret["name"], style="bold"), Text(word, style=style), ", ".join(secret["agents"])
        )
    console.print(table)


_STATES: dict[bool | None, tuple[str, str]] = {
    True: ("set", "green"),
    False: ("not set", "bold red"),
    None: ("not in the environment; a plugin may keep it", "dim"),
}


def _is_set(name: str, *, elsewhere: bool) -> bool | None:
    """Whether the environment has a secret; None where a plugin may have it, which only a worker can ask."""
    from holdfast.secrets import Secrets

    missing = asyncio.run(Secrets().missing([name]))
    return True if not missing else (None if elsewhere else False)


def _as_json(each: Found) -> dict[str, Any]:
    from holdfast.plugins.load import is_required

    plugin = each.plugin
    return {
        "name": each.name,
        "source": each.source,
        "active": plugin is not None,
        "order": plugin.order if plugin is not None else None,
        "required": is_required(plugin) if plugin is not None else None,
        "hooks": each.hooks,
        "problem": each.problem,
    }


def _row(each: Found) -> tuple[Text, Text, Text, Text]:
    from holdfast.plugins.load import is_required

    plugin = each.plugin
    if plugin is None:
        why = Text(clean(each.problem or ""), style="yellow")
        return Text("✗", style="red"), Text(each.name, style="bold"), Text(each.source, style="dim"), why
    told = ", ".join(each.hooks) or "no hooks"
    if is_required(plugin):
        told += " (required)"
    return Text("✓", style="green"), Text(each.name, style="bold"), Text(each.source, style="dim"), Text(told)

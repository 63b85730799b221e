"""Finds plugins: installed packages by their entry points, and what an agents file lists; puts them into order."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

import structlog

from holdfast.errors import ConfigurationError
from holdfast.plugins.contract import Plugin
from holdfast.settings import Settings

__all__ = ["GROUP", "HOOKS", "Found", "find_plugins", "has_hook", "installed"]

GROUP = "holdfast.plugins"
HOOKS = (
    "message",
    "before_model",
    "after_model",
    "answer",
    "before_tool",
    "after_tool",
    "event",
    "tools",
    "secret",
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Found:
    """A plugin and where it is from; or why it is not used."""

    name: str
    source: str
    plugin: Plugin | None = None
    problem: str | None = None

    @property
    def hooks(self) -> list[str]:
        """The hooks that it has."""
        return [hook for hook in HOOKS if self.plugin is not None and has_hook(self.plugin, hook)]


def has_hook(plugin: Plugin, hook: str) -> bool:
    """Whether a plugin has a hook of its own."""
    return getattr(type(plugin), hook) is not getattr(Plugin, hook) or hook in vars(plugin)


def installed() -> list[EntryPoint]:
    """Return the entry points of installed plugins, by name; nothing of them is imported."""
    return sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value))


def find_plugins(settings: Settings, own: Iterable[Plugin] = ()) -> list[Found]:
    """Return all plugins, outermost first, with those that are not used at the end.

    An installed one that does not load is among the latter and keeps nobody from starting, unless the settings name it.

    Raises:
        ConfigurationError: a plugin that the settings name is not installed or does not load; two have one name.

    """
    named, left_out = _choice(settings.plugins)
    points = installed()
    unknown = (named or set()) - {point.name for point in points}
    if unknown:
        known = ", ".join(sorted({point.name for point in points})) or "none"
        raise ConfigurationError(
            f"HOLDFAST_PLUGINS names {', '.join(sorted(unknown))}, and no such plugin is installed. Installed: {known}."
        )
    mine = [_own(plugin) for plugin in own]
    twice = {each.name for each in mine if sum(each.name == other.name for other in mine) > 1}
    if twice:
        raise ConfigurationError(
            f"the agents file has two plugins called {', '.join(sorted(twice))}: give one another name=."
        )
    taken = {each.name for each in mine}
    found = []
    for point in points:
        source = _source(point)
        if point.name in left_out or (named is not None and point.name not in named):
            found.append(Found(point.name, source, problem="turned off by HOLDFAST_PLUGINS"))
        elif point.name in taken:
            found.append(Found(point.name, source, problem="another plugin has its name"))
        else:
            taken.add(point.name)
            found.append(_load(point, source, must=named is not None))
    found += mine
    return sorted(found, key=lambda each: (each.plugin is None, each.plugin.order if each.plugin is not None else 0))


def _choice(setting: str) -> tuple[set[str] | None, set[str]]:
    """Return (names to use, or None for all; names to leave out)."""
    words = [word.strip() for word in setting.split(",")]
    if words == ["all"]:
        return None, set()
    if words == ["none"]:
        return set(), set()
    minus = [word for word in words if word.startswith("-")]
    if minus and len(minus) < len(words):
        raise ConfigurationError(
            f"HOLDFAST_PLUGINS={setting!r} has names with and without `-`: name either those to use or those to leave "
            "out."
        )
    return (None, {word[1:] for word in minus}) if minus else (set(words), set())


def _source(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def _load(point: EntryPoint, source: str, *, must: bool) -> Found:
    try:
        made = point.load()
        plugin = made if isinstance(made, Plugin) else made()
        _check(plugin, f"the plugin {point.name} of {source}")
    except (Exception, SystemExit) as exc:
        said = f"{type(exc).__name__}: {exc}"
        if must:
            raise ConfigurationError(
                f"the plugin {point.name} of {source} does not load: {said}. Mend it, or leave it out of "
                "HOLDFAST_PLUGINS."
            ) from exc
        return Found(point.name, source, problem=f"it does not load: {said}")
    plugin.name = point.name
    return Found(point.name, source, plugin)


def _own(plugin: Plugin) -> Found:
    _check(plugin, f"the plugin {plugin!r} of the agents file")
    if not plugin.name:
        plugin.name = type(plugin).__name__
    return Found(plugin.name, "agents file", plugin)


def _check(plugin: object, what: str) -> None:
    if not isinstance(plugin, Plugin):
        raise ConfigurationError(f"{what} is no plugin: derive its class from holdfast.plugins.Plugin.")
    timeout = plugin.timeout
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if timeout is not None and not (number and math.isfinite(timeout) and timeout > 0):
        raise ConfigurationError(f"{what}: timeout is {timeout!r}; use seconds over 0, or None.")
    if not isinstance(plugin.order, int) or not isinstance(plugin.required, bool):
        raise ConfigurationError(f"{what}: order must be a whole number and required True or False.")
    for hook in HOOKS:
        if not callable(getattr(plugin, hook)):
            raise ConfigurationError(f"{what}: {hook} must be a method.")
    misspelt = [name for name in _odd(plugin) if name not in dir(Plugin)]
    if misspelt:
        log.warning("a plugin has methods that look like hooks and are none", plugin=what, methods=misspelt)


def _odd(plugin: Plugin) -> list[str]:
    """Return public methods whose names begin like a hook's: `after_tools`, `before_message`."""
    methods = inspect.getmembers(type(plugin), inspect.isfunction)
    return [name for name, _ in methods if name.startswith(("before_", "after_", "on_"))]

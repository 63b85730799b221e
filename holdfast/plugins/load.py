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

__all__ = ["GROUP", "HOOKS", "Found", "find_plugins", "has_hook", "installed", "is_required"]

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

_REFUSING = frozenset({"message", "before_model", "after_model", "answer", "before_tool", "after_tool"})

_NOT_NAMED = "installed but not enabled: add its name to HOLDFAST_PLUGINS, or to `plugins` in the agents file"

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


def is_required(plugin: Plugin) -> bool:
    """Whether what a plugin guards fails with it: as it declares, else if it has a hook that may refuse."""
    if plugin.required is not None:
        return plugin.required
    return any(has_hook(plugin, hook) for hook in _REFUSING)


def installed() -> list[EntryPoint]:
    """Return the entry points of installed plugins, by name; nothing of them is imported."""
    return sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value))


def find_plugins(settings: Settings, own: Iterable[Plugin | str] = ()) -> list[Found]:
    """Return all plugins, outermost first, with those that are not used at the end.

    An installed plugin is imported only when the settings, or *own*, name it: the package of a dependency runs no code
    of its own here. *own* is the list of the agents file: plugins, and names of installed ones.

    Raises:
        ConfigurationError: a plugin that is named is not installed or does not load; two have one name.

    """
    given = list(own)
    named = _named(settings.plugins)
    named |= dict.fromkeys((each for each in given if isinstance(each, str)), "the agents file")
    points = installed()
    for name, where in named.items():
        if name not in {point.name for point in points}:
            known = ", ".join(sorted({point.name for point in points})) or "none"
            raise ConfigurationError(
                f"{where} names the plugin {name}, which is not installed. Install it or remove the name. Installed: "
                f"{known}."
            )
    mine = [_own(plugin) for plugin in given if isinstance(plugin, Plugin)]
    twice = {each.name for each in mine if sum(each.name == other.name for other in mine) > 1}
    if twice:
        raise ConfigurationError(
            f"the agents file has two plugins called {', '.join(sorted(twice))}: give one another name=."
        )
    taken = {each.name for each in mine}
    found = []
    for point in points:
        if point.name not in named:
            found.append(Found(point.name, _source(point), problem=_NOT_NAMED))
        elif point.name in taken:
            found.append(Found(point.name, _source(point), problem="another plugin has the same name"))
        else:
            taken.add(point.name)
            found.append(_load(point, _source(point)))
    found += mine
    return sorted(found, key=lambda each: (each.plugin is None, each.plugin.order if each.plugin is not None else 0))


def _named(setting: str) -> dict[str, str]:
    """Return the names of the setting, each with what to call the place where it stands."""
    names = [] if setting == "none" else [word.strip() for word in setting.split(",")]
    for name in names:
        if name in ("all", "none") or name.startswith("-"):
            known = ",".join(sorted({point.name for point in installed()})) or "none"
            raise ConfigurationError(
                f"HOLDFAST_PLUGINS={setting!r} is not supported: list the plugins to use by name. Installed: {known}."
            )
    return dict.fromkeys(names, "HOLDFAST_PLUGINS")


def _source(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def _load(point: EntryPoint, source: str) -> Found:
    try:
        made = point.load()
        plugin = made if isinstance(made, Plugin) else made()
        _check(plugin, f"the plugin {point.name} of {source}")
    except (Exception, SystemExit) as exc:
        raise ConfigurationError(
            f"the plugin {point.name} of {source} could not be loaded: {type(exc).__name__}: {exc}. Correct it, or "
            "remove its "
            "name from HOLDFAST_PLUGINS or from `plugins` in the agents file."
        ) from exc
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
    if not isinstance(plugin.order, int) or not isinstance(plugin.required, bool | None):
        raise ConfigurationError(f"{what}: order must be a whole number and required True, False or None.")
    for hook in HOOKS:
        if not callable(getattr(plugin, hook)):
            raise ConfigurationError(f"{what}: {hook} must be a method.")
    odd = [name for name in _odd(plugin) if name not in dir(Plugin)]
    misspelt = [name for name in odd if not name.startswith("on_")]
    if misspelt:  # a guardrail that is never called lets everything pass
        raise ConfigurationError(
            f"{what}: {', '.join(misspelt)} is not a hook and would never be called. The hooks are: "
            f"{', '.join(HOOKS)}. "
            "If it is a helper method, rename it."
        )
    if odd:
        log.warning("a plugin has methods that look like hooks but are not", plugin=what, methods=odd)


def _odd(plugin: Plugin) -> list[str]:
    """Return public methods whose names begin like a hook's: `after_tools`, `before_message`."""
    methods = inspect.getmembers(type(plugin), inspect.isfunction)
    return [name for name, _ in methods if name.startswith(("before_", "after_", "on_"))]

"""Loads a worker's plugins and starts them; ends them with it. The runtime calls it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

import structlog

from holdfast.plugins.contract import Plugin
from holdfast.plugins.host import Host
from holdfast.plugins.load import find_plugins
from holdfast.settings import Settings
from holdfast.tools.runner import ToolRunner

__all__ = ["open_plugins"]

log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def open_plugins(settings: Settings, own: Iterable[Plugin | str]) -> AsyncIterator[Host]:
    """Yield the host of a worker's plugins. The hooks of each run on an event loop and threads of their own.

    So nothing but a plugin itself can keep its hooks waiting: no tool that blocks the tool loop, no other plugin.

    Raises:
        ConfigurationError: one that must be there is not, or does not start.

    """
    found = await asyncio.to_thread(find_plugins, settings, own)  # an import may take seconds
    for each in found:
        if each.plugin is None:
            log.info("a plugin is not used", plugin=each.name, source=each.source, why=each.problem)
    plugins = [each.plugin for each in found if each.plugin is not None]
    if not plugins:
        yield Host()
        return
    async with contextlib.AsyncExitStack() as stack:
        runners = {
            plugin.name: await stack.enter_async_context(ToolRunner(settings, whose=f"the plugin {plugin.name}"))
            for plugin in plugins
        }
        host = Host(plugins, settings, runners)
        stack.push_async_callback(host.stop)
        await host.start()
        log.info("plugins, outermost first", order=[plugin.name for plugin in host.plugins])
        yield host

"""Calls the hooks of a worker's plugins: in order, off the worker's loop, each under a time-out, its errors its own.

Without plugins each `has` is a look into an empty dict. Activities ask `has` before they prepare anything.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import structlog

from holdfast.contracts import Event
from holdfast.errors import ConfigurationError, PluginFailed, Refused, SecretUnavailable, ToolNotStarted
from holdfast.ids import canonical_json, storable
from holdfast.plugins.contract import AskedCall, At, ModelCall, Plugin, Reply, ToolCall, ToolResult
from holdfast.plugins.load import HOOKS, has_hook, is_required
from holdfast.secrets import Secrets, mask
from holdfast.settings import Settings, defaults
from holdfast.tools.runner import CLOSING, NeverBegan, ToolRunner

__all__ = ["Host", "Note"]

_OUTWARD = ("after_model", "answer", "after_tool")  # the outermost plugin sees these last
_IN_STEPS = ("before_model", "after_model", "answer", "before_tool", "after_tool")
_TRIES = 3  # of a required plugin
_PAUSE = 0.2
_SAID = 1000  # characters of a plugin's words
_WHOLE = 40.0  # seconds for all plugins of one point: a step that is one transaction has 60

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Note:
    """What a plugin did to a step, for the run's record."""

    plugin: str
    hook: str
    did: Literal["changed", "refused", "failed"]
    why: str | None = None


class Host:
    """The plugins of one worker, outermost first."""

    def __init__(
        self,
        plugins: Sequence[Plugin] = (),
        settings: Settings | None = None,
        runner: ToolRunner | Mapping[str, ToolRunner] | None = None,
    ) -> None:
        """Call nothing yet. Hooks run on *runner*: one for all plugins, or each one's by its name."""
        self.plugins: list[Plugin] = list(plugins)
        self._settings = settings
        self._runner = runner
        self._chains: dict[str, list[Plugin]] = {}
        self._asleep: set[str] = set()  # secret stores that could not start: asked for a value, they try again
        self._waking: set[str] = set()
        self._woken: list[Plugin] = []
        self._link()

    def _link(self) -> None:
        self._chains = {}
        for hook in HOOKS:
            chain = [plugin for plugin in self.plugins if has_hook(plugin, hook)]
            if chain:
                self._chains[hook] = chain[::-1] if hook in _OUTWARD else chain

    def has(self, hook: str) -> bool:
        """Whether any plugin has this hook."""
        return hook in self._chains

    def of(self, hook: str) -> list[Plugin]:
        """Return the plugins that have this hook, in the order they are called."""
        return self._chains.get(hook, [])

    @property
    def secrets(self) -> Secrets:
        """Where secrets are looked up."""

        def look_up(plugin: Plugin) -> Callable[[str], Any]:
            async def ask(name: str) -> str | None:
                try:
                    if plugin.name in self._asleep:
                        await self._wake(plugin)
                    found = await self._run(plugin, "secret", plugin.secret, name)
                except Exception as exc:  # what a store does not tell is not known, and never guessed elsewhere
                    raise SecretUnavailable(
                        f"the secret store {plugin.name} did not answer for {name}: {_said(exc)}. Nothing was sent."
                    ) from exc
                return None if found is None else str(found)

            return ask

        return Secrets([(plugin.name, look_up(plugin)) for plugin in self.of("secret")])

    @property
    def seconds(self) -> float:
        """The longest that a step's hooks may take together, which is time that the step itself does not have."""
        hooks = [(hook, plugin) for hook in _IN_STEPS for plugin in self.of(hook)]
        waits = sum(hook in _OUTWARD and is_required(plugin) for hook, plugin in hooks)
        return sum(self.longest(hook, plugin) for hook, plugin in hooks) + waits * self._most_wait

    def longest(self, hook: str, plugin: Plugin) -> float:
        """Return the seconds that all tries of one hook may take together, with the pauses between them."""
        tries = _tries(plugin)
        return tries * self._limit(hook, plugin) + _pauses(tries)

    # ------------------------------------------------------------------------------------ life

    async def start(self) -> None:
        """Have all get ready. One that fails is left out; of a secret store that fails, `secret` is not.

        Without it, a value might be taken from elsewhere, or be missed and keep the worker from starting.

        Raises:
            ConfigurationError: a required one fails.

        """
        ready, stores = [], self.of("secret")
        for plugin in self.plugins:
            try:
                await self._run(plugin, "start", plugin.start)
            except Exception as exc:
                if is_required(plugin):
                    raise ConfigurationError(
                        f"the plugin {plugin.name} is required and cannot start: {_said(exc)}. Mend it or take it out."
                    ) from exc
                log.error("a plugin cannot start and is left out", plugin=plugin.name, error=_said(exc))
                if any(plugin is each for each in stores):
                    self._asleep.add(plugin.name)
            else:
                ready.append(plugin)
        self.plugins = ready
        self._link()
        if self._asleep:
            self._chains["secret"] = [
                each for each in stores if each.name in {*self._asleep, *(one.name for one in ready)}
            ]

    async def _wake(self, plugin: Plugin) -> None:
        """Start a store late. Whoever asks meanwhile is told to come again."""
        if plugin.name in self._waking:
            raise RuntimeError("it is being started")
        self._waking.add(plugin.name)
        try:
            await self._run(plugin, "start", plugin.start)
            self._asleep.discard(plugin.name)
            self._woken.append(plugin)
        finally:
            self._waking.discard(plugin.name)

    def end_by(self, until: float) -> None:
        """Let no hook from now on take longer than *until*, on the clock of `time.monotonic()`: the worker ends."""
        runners = self._runner.values() if isinstance(self._runner, Mapping) else [self._runner]
        for runner in runners:
            if runner is not None:
                runner.end_by(until)

    async def stop(self) -> None:
        """Have all let go of what they opened, the last first. One that is blocked is left as it is, after a moment."""
        for plugin in reversed([*self.plugins, *self._woken]):
            try:
                await self._run(plugin, "stop", plugin.stop, patience=CLOSING)
            except Exception as exc:  # noqa: BLE001  # it ends either way
                log.warning("a plugin did not stop in order", plugin=plugin.name, error=_said(exc))

    # ------------------------------------------------------------------------------------ hooks

    async def message(self, at: At, text: str, notes: list[Note]) -> str:
        """Return the text to store. Raises as all of these: Refused, and PluginFailed where a required one failed."""
        return await self._through("message", at, text, notes, _words)

    async def answer(self, at: At, text: str, notes: list[Note]) -> str:
        """Return the answer to store."""
        return await self._through("answer", at, text, notes, _words)

    async def before_model(self, at: At, call: ModelCall, notes: list[Note]) -> ModelCall:
        """Return the request to send."""
        return await self._through("before_model", at, call, notes, _same_model)

    async def after_model(self, at: At, reply: Reply, notes: list[Note]) -> Reply:
        """Return the reply to store."""
        return await self._through("after_model", at, reply, notes, _same_calls)

    async def before_tool(self, at: At, call: ToolCall, notes: list[Note]) -> None:
        """Let a call be sent, or refuse it."""
        await self._through("before_tool", at, call, notes, _nothing)

    async def after_tool(self, at: At, result: ToolResult, notes: list[Note]) -> str:
        """Return the text of a result to store."""
        shown = result
        for plugin in self.of("after_tool"):
            text = await self._one(plugin, "after_tool", at, shown, notes, _text)
            if text is not None and text != shown.text:
                notes.append(Note(plugin.name, "after_tool", "changed"))
                shown = ToolResult(tool=shown.tool, args=shown.args, text=text, error=shown.error)
        return shown.text

    async def event(self, plugin: Plugin, event: Event) -> None:
        """Tell one plugin of an event. Raises whatever it raises."""
        await self._run(plugin, "event", plugin.event, event)

    async def tools(self, plugin: Plugin, agent: str) -> Iterable[Any]:
        """Return a plugin's tools for an agent. Raises whatever it raises."""
        return list(await self._run(plugin, "tools", plugin.tools, agent) or ())

    async def _through(self, hook: str, at: At, value: T, notes: list[Note], check: Callable[..., Any]) -> T:
        for plugin in self.of(hook):
            given = await self._one(plugin, hook, at, value, notes, check)
            if given is not None and given != value:
                notes.append(Note(plugin.name, hook, "changed"))
                value = given
        return value

    async def _one(
        self, plugin: Plugin, hook: str, at: At, value: Any, notes: list[Note], check: Callable[..., Any]
    ) -> Any:
        """Return what one plugin makes of a value; None for nothing. It gets a copy: what it spoils is its own.

        A hook that was not begun is no failure of a required plugin: it has seen nothing, so the step waits. What was
        done already waits for `hook_wait` seconds in all, because no other worker knows it.
        """
        function, tries = getattr(plugin, hook), _tries(plugin)
        number = waits = 0
        left = self._most_wait if hook in _OUTWARD and is_required(plugin) else None
        while True:
            began = time.monotonic()
            try:
                own = value if isinstance(value, str) else await asyncio.to_thread(copy.deepcopy, value)
                given = await self._run(plugin, hook, function, at, own, patience=left)
                return check(value, given) if isinstance(value, str) else await asyncio.to_thread(check, value, given)
            except Exception as exc:
                refusal = _refusal(exc)
                if refusal is not None:
                    why = _plain(str(refusal))
                    notes.append(Note(plugin.name, hook, "refused", why))
                    raise Refused(f"{plugin.name} refused this {_WHAT[hook]}: {why}") from exc
                if isinstance(exc, ToolNotStarted) and not self._running(plugin):
                    raise  # this worker stops: another one shall ask the plugin
                problem = _said(exc)
                if isinstance(exc, NeverBegan) and is_required(plugin):
                    waits += 1
                    await self._wait(plugin, hook, waits, exc)
                    if left is None or (left := left - (time.monotonic() - began)) > 0:
                        continue
                    number, problem = tries, self._blocked  # it had all its time: no try is left
                else:
                    number += 1
                log.warning(
                    "a plugin failed", plugin=plugin.name, hook=hook, run_id=at.run_id, error=problem, number=number
                )
                if number < tries:
                    await asyncio.sleep(_PAUSE * number)
                    continue
                notes.append(Note(plugin.name, hook, "failed", problem))
                if is_required(plugin):
                    raise PluginFailed(
                        f"{plugin.name}, which must see this {_WHAT[hook]}, failed: {problem}. Mend the plugin, or "
                        "take it out."
                    ) from exc
                return None

    async def _wait(self, plugin: Plugin, hook: str, waits: int, exc: NeverBegan) -> None:
        """Pause before a required plugin that was not begun is asked again.

        What was done already (a reply that is paid, a call that was made) waits here, since only this worker knows it.

        Raises:
            ToolNotStarted: what has yet to be done begins anew, on any worker.

        """
        log.warning(
            "a plugin could not start, so the step waits", plugin=plugin.name, hook=hook, waits=waits, why=str(exc)
        )
        if waits >= _TRIES and hook not in _OUTWARD:
            raise ToolNotStarted(
                f"{plugin.name}, which must see this {_WHAT[hook]}, was not started: {exc} The step is retried."
            ) from exc
        await asyncio.sleep(_PAUSE * min(waits, _TRIES))

    def _limit(self, hook: str, plugin: Plugin) -> float:
        """Return the seconds of one try. All tries of all plugins of `message` share what one transaction has."""
        if self._settings is None:
            return _WHOLE
        wanted = self._settings.scaled(plugin.timeout or self._settings.hook_timeout)
        if hook != "message":
            return wanted
        tries = _tries(plugin)
        return min(wanted, (_WHOLE / max(1, len(self.of(hook))) - _pauses(tries)) / tries)

    @property
    def _most_wait(self) -> float:
        """The seconds that a reply or a result waits for a required plugin that is blocked."""
        settings = self._settings or defaults()
        return settings.scaled(settings.hook_wait)

    @property
    def _blocked(self) -> str:
        return (
            f"it could not be called for {self._most_wait:.0f} s (HOLDFAST_HOOK_WAIT), because its event loop or "
            "threads are blocked; a restart of the worker frees them"
        )

    async def _run(
        self, plugin: Plugin, hook: str, function: Callable[..., Any], /, *args: Any, patience: float | None = None
    ) -> Any:
        """Call a hook. It has to begin within *patience* seconds, if these are fewer than its time-out."""
        runner = self._runner_of(plugin)
        if runner is None:
            raise ConfigurationError("this worker runs no plugins")
        limit = self._limit(hook, plugin)
        most = limit / 2 if hook == "message" else limit  # half of 40 s: with the tries, what the activity has
        begins = most if patience is None else min(most, patience)
        return await runner.guest(f"{plugin.name}.{hook}", function, *args, timeout=limit, patience=begins)

    def _runner_of(self, plugin: Plugin) -> ToolRunner | None:
        return self._runner.get(plugin.name) if isinstance(self._runner, Mapping) else self._runner

    def _running(self, plugin: Plugin) -> bool:
        runner = self._runner_of(plugin)
        return runner is None or runner.running


_WHAT = {
    "message": "message",
    "answer": "answer",
    "before_model": "model call",
    "after_model": "reply",
    "before_tool": "call",
    "after_tool": "result",
}


def _tries(plugin: Plugin) -> int:
    return _TRIES if is_required(plugin) else 1


def _pauses(tries: int) -> float:
    """Return the seconds between so many tries, together."""
    return sum(_PAUSE * number for number in range(1, tries))


def _said(exc: BaseException) -> str:
    return _plain(f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__)


def _plain(text: str) -> str:
    """Return a plugin's words as they can be stored and sent: a NUL in them would hold up what they are about."""
    return mask(storable(text))[:_SAID]


def _refusal(exc: BaseException) -> Refused | None:
    """Return the refusal that an exception is, also where a task group of the hook has wrapped it."""
    if isinstance(exc, Refused):
        return exc
    within = exc.exceptions if isinstance(exc, BaseExceptionGroup) else ()
    return next((found for each in within if (found := _refusal(each)) is not None), None)


def _words(_: Any, given: Any) -> str | None:
    if isinstance(given, str) and not given.strip():
        raise TypeError("it returned an empty text; raise Refused to refuse")
    return _text(_, given)


def _text(_: Any, given: Any) -> str | None:
    if given is not None and not isinstance(given, str):
        raise TypeError(f"it returned a {type(given).__name__}; a text, or None for no change, is wanted")
    return given


def _nothing(_: Any, given: Any) -> None:
    if given is not None:
        raise TypeError(f"it returned a {type(given).__name__}; before_tool returns nothing: raise Refused to refuse")


def _same_model(call: ModelCall, given: Any) -> ModelCall | None:
    if given is None:
        return None
    if not isinstance(given, ModelCall):
        raise TypeError(f"it returned a {type(given).__name__}; a ModelCall, or None for no change, is wanted")
    if given.model != call.model:
        raise TypeError("it changed the model, which is the agent's")
    if not set(given.tools) <= set(call.tools):
        raise TypeError("it added a tool that the agent does not have")
    if not given.messages or not all(isinstance(each, dict) and "role" in each for each in given.messages):
        raise TypeError("its messages are no list of messages")
    try:
        canonical_json(given.messages)
    except (TypeError, ValueError, RecursionError) as exc:
        raise TypeError(f"its messages are no JSON: {exc}") from None
    return given


def _same_calls(reply: Reply, given: Any) -> Reply | None:
    if given is None:
        return None
    if not isinstance(given, Reply) or not isinstance(given.text, str | None):
        raise TypeError(f"it returned a {type(given).__name__}; a Reply, or None for no change, is wanted")
    if not all(isinstance(call, AskedCall) and isinstance(call.arguments, str) for call in given.calls):
        raise TypeError("its calls are no AskedCall, or their arguments no text of JSON")
    names = {call.id: call.name for call in reply.calls}
    ids = [call.id for call in given.calls]
    if len(set(ids)) < len(ids) or any(names.get(call.id) != call.name for call in given.calls):
        raise TypeError("it added a call, or gave one another tool; it may leave out calls and change their arguments")
    return given

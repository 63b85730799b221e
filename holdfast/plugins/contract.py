"""The whole contract of a plugin. Users derive from `Plugin` and write the hooks they need; workers call them.

A hook is a method, `def` or `async def`. Where several plugins have it, the first is outermost: what goes in
(`message`, `before_model`, `before_tool`) it sees first, what comes out (`after_model`, `answer`, `after_tool`) it sees
last. Returning None changes nothing. Raising `Refused` refuses; any other exception is the plugin's own failure: it is
logged and recorded as an event of the run. A plugin with a hook that may refuse something is a guardrail: if it fails,
the step it guards fails too, unless it declares `required = False`. Any other plugin that fails is skipped.

Hooks run in activities, never in workflow code. When a worker dies in a hook, the step begins again and the hook is
called again; what is on record is never shown to a hook a second time. So a hook may run more than once for one step,
and `At.attempt` over 1 says that it may have. A worker calls one plugin for many runs at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from holdfast.contracts import EffectClass, Event
from holdfast.errors import Refused

__all__ = ["AskedCall", "At", "ModelCall", "Plugin", "Refused", "Reply", "ToolCall", "ToolResult"]

T = TypeVar("T")
Now: TypeAlias = Awaitable[T] | T
"""What a hook returns: at once, or by `async def`."""


@dataclass(frozen=True, kw_only=True)
class At:
    """Where a hook is called: whose thread, which run and step. `parent` is the run that asked, for a sub-agent's."""

    tenant: str
    thread: str
    run_id: str
    agent: str
    step_no: int = 0
    attempt: int = 1
    parent: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelCall:
    """What a model is about to be sent: messages in the JSON of OpenAI's chat completions, the instructions first."""

    model: str
    messages: list[dict[str, Any]]  # Any: protocol JSON
    tools: list[str]


@dataclass(frozen=True, kw_only=True)
class AskedCall:
    """A tool call that a model asks for. `arguments` is its JSON; `ask` has a person approve it first."""

    id: str
    name: str
    arguments: str
    ask: bool = False


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a model replied. Without calls it is the answer."""

    text: str | None
    calls: list[AskedCall] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A tool call about to be made; people may have approved these very arguments, so they cannot be changed here."""

    tool: str
    args: dict[str, Any]
    effect: EffectClass
    idempotency_key: str


@dataclass(frozen=True, kw_only=True)
class ToolResult:
    """What a tool call came to, as the model will read it. `error`: the tool failed or refused."""

    tool: str
    args: dict[str, Any]
    text: str
    error: bool = False


class Plugin:
    """Base of all plugins. Every hook may be left out.

    Attributes:
        name: how people and events call it; unset, the name of the class.
        order: lower is further out. Equal ones: installed ones by name, then those of the agents file as listed there.
        required: whether a step fails if this plugin fails, and workers do not start if its `start` fails. Default:
            True for a plugin with `message`, `before_model`, `after_model`, `answer`, `before_tool` or `after_tool`,
            which may refuse something. True also repeats an `event` until the plugin has accepted it, or has refused it
            HOLDFAST_EVENT_TRIES times while it accepts others; then the event is set aside.
        timeout: seconds for one try of a hook. Default: HOLDFAST_HOOK_TIMEOUT.

    """

    name: str = ""
    order: int = 0
    required: bool | None = None
    timeout: float | None = None

    def start(self) -> Now[None]:
        """Get ready. Once in each worker, on the event loop of this plugin's hooks, which is not that of tools."""

    def stop(self) -> Now[None]:
        """Let go of what `start` has opened."""

    def message(self, at: At, text: str) -> Now[str | None]:
        """See a message before it is stored; return another text, or refuse. Of a schedule or another agent as well."""

    def before_model(self, at: At, call: ModelCall) -> Now[ModelCall | None]:
        """See a request before it is sent; return one with other messages or fewer tools. Refusing fails the run."""

    def after_model(self, at: At, reply: Reply) -> Now[Reply | None]:
        """See a reply before it is stored; return one with other text, fewer calls, other arguments, or `ask` set.

        Approvals come after this. Refusing fails the run: its reply is paid for and withheld.
        """

    def answer(self, at: At, text: str) -> Now[str | None]:
        """See an answer before it is stored, after `after_model`; return another text. Refusing fails the run."""

    def before_tool(self, at: At, call: ToolCall) -> Now[None]:
        """See a call before it is sent. Refusing tells the model. Not called again once a request may have left."""

    def after_tool(self, at: At, result: ToolResult) -> Now[str | None]:
        """See a result before it is stored; return another text. Refusing withholds it: the effect stands.

        Killed in here, a call of a `once` tool is in doubt, as always between its sending and its record: be quick.
        """

    def event(self, event: Event) -> Now[None]:
        """Hear of all that happens in runs, in order for each run, each event at least once."""

    def tools(self, agent: str) -> Now[Iterable[Any]]:
        """Return the tools for an agent that has `plugin_tools(name)` among its own. Once, when a worker starts."""
        return ()

    def secret(self, name: str) -> Now[str | None]:
        """Return the value of a secret, or None if it is not kept here. Stores are asked before the environment."""

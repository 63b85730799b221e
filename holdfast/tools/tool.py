"""The `@tool` decorator and what it makes. Users declare tools with it; agents, activities and the runner use them."""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, Generic, Literal, ParamSpec, TypeVar, overload

from pydantic import ValidationError

from holdfast.contracts import ApprovalPolicy, EffectClass, ToolDefinition
from holdfast.errors import ConfigurationError
from holdfast.tools.context import ToolContext
from holdfast.tools.schema import read_signature

__all__ = ["AnyTool", "Tool", "tool"]

P = ParamSpec("P")
R = TypeVar("R")

LookUp = Callable[..., Any]


class Tool(Generic[P, R]):
    """A function a model may call. It is still called like the function.

    Attributes:
        function: the function itself.
        is_async: it is a coroutine function.
        context: name of the parameter that gets the ToolContext, if it has one.
        lookup: finds out whether a call took effect (`verifiable` tools).
        routed: "memory" when the memory process carries it out instead of the function.
        secrets: names of the secrets that it needs, looked for when a worker starts.

    """

    secrets: frozenset[str] = frozenset()

    def __init__(
        self,
        function: Callable[P, R],
        *,
        effect: EffectClass = "once",
        approval: ApprovalPolicy = "never",
        timeout: float = 60.0,
        attempts: int = 3,
        settle: float = 0.0,
        lookup: LookUp | None = None,
        key_lifetime: float | None = None,
        single_request: bool = False,
        name: str | None = None,
        version: str = "1",
        routed: Literal["memory"] | None = None,
        local: Mapping[str, Any] | None = None,
    ) -> None:
        """Read the function's signature; see `tool` for the arguments.

        Raises:
            ConfigurationError: the function cannot be a tool; the message names it and says why.

        """
        if not (inspect.isfunction(function) or inspect.ismethod(function)):
            raise ConfigurationError(f"{function!r} cannot be a tool: give a function (`def` or `async def`).")
        signature = read_signature(function, name=name, local=local)
        functools.update_wrapper(self, function)
        self.function: Callable[P, R] = function
        self.is_async: bool = inspect.iscoroutinefunction(function)
        self.context: str | None = signature.context
        self.lookup: LookUp | None = lookup
        self.routed: Literal["memory"] | None = routed
        self._signature = signature
        self._check(effect, settle, timeout, key_lifetime)
        if single_request and effect in ("pure", "local_tx"):
            raise ConfigurationError(
                f"tool {signature.name}: single_request= belongs to effect='once', 'keyed' or 'verifiable', not "
                f"{effect!r}: if a `pure` or `local_tx` tool raises, nothing took effect in any case. Remove it."
            )
        try:
            self._definition = ToolDefinition(
                name=signature.name,
                description=signature.description,
                parameters=signature.parameters,
                effect=effect,
                approval=approval,
                timeout=timeout,
                attempts=attempts,
                settle=settle,
                key_lifetime=key_lifetime,
                single_request=single_request,
                queue="memory" if routed == "memory" else "agents",
                version=str(version),
            )
        except ValidationError as exc:
            wrong = "; ".join(f"{error['loc'][0]}: {error['msg']} (given {error['input']!r})" for error in exc.errors())
            raise ConfigurationError(f"tool {signature.name}: {wrong}. Change the @tool declaration.") from None

    @property
    def name(self) -> str:
        """The name the model calls it by."""
        return self._definition.name

    @property
    def definition(self) -> ToolDefinition:
        """The tool as the model and the policies see it."""
        return self._definition

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself: no ledger, no checks. For tests, and for tools that use one another."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Tool {self.name} ({self.definition.effect})>"

    def validate(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return a model's *args* as keyword arguments of the function: right types, defaults filled in.

        Raises:
            ToolArgumentsInvalid: they do not fit; the message tells the model how to mend each one.

        """
        return self._signature.validate(args)

    def bind(self, args: dict[str, Any], ctx: ToolContext) -> dict[str, Any]:
        """Return validated *args* with the context added where the function asks for it."""
        return {**args, self.context: ctx} if self.context else dict(args)

    def _check(self, effect: str, settle: float, timeout: float, key_lifetime: float | None) -> None:
        """Refuse declarations that could not keep what their effect class promises."""
        owner = self._signature.name
        if inspect.isgeneratorfunction(self.function) or inspect.isasyncgenfunction(self.function):
            raise ConfigurationError(f"tool {owner}: it yields, and a model gets one result. Return a list instead.")
        if not all(math.isfinite(value) for value in (timeout, settle, key_lifetime) if isinstance(value, int | float)):
            raise ConfigurationError(
                f"tool {owner}: timeout, settle and key_lifetime must be finite numbers of seconds."
            )
        if effect == "verifiable":
            if self.lookup is None or not settle > 0:
                raise ConfigurationError(
                    f"tool {owner}: effect='verifiable' needs lookup=, a function (ctx, **arguments) that returns the "
                    "result of a call that took effect or None, and settle=, the seconds a sent request may still land."
                )
            self._check_lookup(owner, self.lookup)
        elif self.lookup is not None or settle:
            raise ConfigurationError(
                f"tool {owner}: lookup= and settle= belong to effect='verifiable', not {effect!r}."
            )
        if effect != "keyed" and key_lifetime is not None:
            raise ConfigurationError(f"tool {owner}: key_lifetime= belongs to effect='keyed', not {effect!r}.")
        if effect == "keyed" and self.context is None:
            raise ConfigurationError(
                f"tool {owner}: effect='keyed' needs a parameter `ctx: ToolContext`, because the remote must be sent "
                "ctx.idempotency_key."
            )
        if effect == "local_tx" and not (self.is_async and self.context):
            raise ConfigurationError(
                f"tool {owner}: effect='local_tx' needs `async def` and a parameter `ctx: ToolContext`, because it "
                "writes on ctx.connection inside the ledger's transaction."
            )

    def _check_lookup(self, owner: str, lookup: LookUp) -> None:
        names = dict.fromkeys(self._signature.fields)
        try:
            inspect.signature(lookup).bind(None, **names)
        except (TypeError, ValueError) as exc:
            wanted = ", ".join(["ctx", *names])
            raise ConfigurationError(
                f"tool {owner}: lookup= must be a function that takes ({wanted}), the last ones by name: {exc}."
            ) from None


AnyTool = Tool[..., Any]


def _visible(depth: int) -> Mapping[str, Any]:
    """Return the names visible where a decorator stands: types may be local to an enclosing function."""
    frame = sys._getframe(depth + 1)
    return {} if frame.f_locals is frame.f_globals else dict(frame.f_locals)


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...


@overload
def tool(
    *,
    effect: EffectClass = "once",
    approval: ApprovalPolicy = "never",
    timeout: float = 60.0,
    attempts: int = 3,
    settle: float = 0.0,
    lookup: LookUp | None = None,
    key_lifetime: float | None = None,
    single_request: bool = False,
    name: str | None = None,
    version: str = "1",
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...


def tool(
    function: Callable[P, R] | None = None,
    /,
    *,
    effect: EffectClass = "once",
    approval: ApprovalPolicy = "never",
    timeout: float = 60.0,
    attempts: int = 3,
    settle: float = 0.0,
    lookup: LookUp | None = None,
    key_lifetime: float | None = None,
    single_request: bool = False,
    name: str | None = None,
    version: str = "1",
) -> Tool[P, R] | Callable[[Callable[P, R]], Tool[P, R]]:
    """Make a function a tool: `@tool` or `@tool(effect="pure")`.

    The model sees the docstring, and a schema made of the type hints; the `Args:` section describes the parameters.

    Args:
        function: filled in by the bare form `@tool`.
        effect: what may happen when a try is cut off. `pure`: run again freely. `keyed`: the remote honours
            ctx.idempotency_key. `local_tx`: writes on ctx.connection. `verifiable`: `lookup` can tell. `once`
            (the default): never sent twice; a person decides when nobody can tell. One tool should have one effect.
        approval: `always` asks a person before each call.
        timeout: seconds of one try, from start to result.
        attempts: tries before a repeated failure is told to the model.
        settle: seconds a sent request may still land at the remote (`verifiable`).
        lookup: `(ctx, **arguments)`, sync or async: the result of the call that took effect, or None (`verifiable`).
        key_lifetime: seconds for which the remote remembers ctx.idempotency_key (`keyed`). If the first send is longer
            ago, a call that was cut off is in doubt instead of being sent again. None: HOLDFAST_KEY_LIFETIME, one day.
        single_request: the body opens exactly one connection, which is its only effect. A refused connection, a failed
            name lookup or an untrusted certificate then proves that nothing was sent, and the call is retried. With
            False (the default), such an error puts a `once` call in doubt.
        name: name for the model, if not the function's.
        version: change it when the tool's meaning changes.

    Raises:
        ConfigurationError: the function cannot be such a tool; the message names function and parameter.

    """

    def make(target: Callable[P, R], local: Mapping[str, Any]) -> Tool[P, R]:
        return Tool(
            target.function if isinstance(target, Tool) else target,
            effect=effect,
            approval=approval,
            timeout=timeout,
            attempts=attempts,
            settle=settle,
            lookup=lookup,
            key_lifetime=key_lifetime,
            single_request=single_request,
            name=name,
            version=version,
            local=local,
        )

    if function is not None:
        return make(function, _visible(1))
    return lambda target: make(target, _visible(1))

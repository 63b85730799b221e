"""A typed single call written as a class: `class Summarise(Signature)`. Part of the public API; it becomes an agent."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import BaseModel, PrivateAttr, ValidationError, create_model, field_validator
from pydantic import Field as _Field

from holdfast.errors import ConfigurationError, InvalidInput, OutputInvalid

if TYPE_CHECKING:
    from holdfast.agent import Agent
    from holdfast.views import Answer

__all__ = [
    "Input",
    "Output",
    "Signature",
    "agent_name",
    "agent_of",
    "check_inputs",
    "instance_of",
    "is_signature",
    "message_of",
    "outputs_of",
]

S = TypeVar("S", bound="Signature")

_SIDE = "x-holdfast"  # where a field says on which side it stands; never sent to a model
_RESERVED = ("thread", "message_id", "timeout")  # what `client.predict` takes besides the inputs


def Input(default: Any = ..., *, description: str | None = None, **more: Any) -> Any:  # noqa: N802  # reads as a type
    """Mark a field that the caller gives. Takes what pydantic's `Field` takes."""
    return _Field(default, description=description, json_schema_extra={_SIDE: "input"}, **more)


def Output(default: Any = ..., *, description: str | None = None, **more: Any) -> Any:  # noqa: N802
    """Mark a field that the model gives. Takes what pydantic's `Field` takes."""
    return _Field(default, description=description, json_schema_extra={_SIDE: "output"}, **more)


class Signature(BaseModel):
    """Inputs, outputs and, as the docstring, what to do: one call of a model, typed on both sides.

    Class arguments are those of `Agent`: `class Summarise(Signature, model="openai/gpt-5-mini", corrections=1)`. They
    are inherited, so a base class without fields can name the model for all. A signature in the agents file is an agent
    of the class's name (or `name=`); `client.predict(Summarise, text=…)` runs it.
    """

    _options: ClassVar[dict[str, Any]] = {}
    _answer: Any = PrivateAttr(default=None)

    def __init_subclass__(cls, **options: Any) -> None:
        """Take the class arguments, which pydantic does not know."""
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Check the fields and keep the class arguments.

        Raises:
            ConfigurationError: a field is on no side, an input has a reserved name, or there are inputs only.

        """
        cls._options = {**cls._options, **options}
        if options.get("name") is None:
            cls._options.pop("name", None)  # a name is nobody's heir
        for name in cls.model_fields:
            if _side(cls, name) is None:
                raise ConfigurationError(
                    f"signature {cls.__name__}: write `{name}: … = Input()` or `{name}: … = Output()`."
                )
            if name in _RESERVED and _side(cls, name) == "input":
                raise ConfigurationError(
                    f"signature {cls.__name__}: an input cannot be called {name!r}: `predict` has an argument of that "
                    "name. Call it something else."
                )
        if cls.model_fields and not _fields(cls, "output"):
            raise ConfigurationError(f"signature {cls.__name__} has no output: add `answer: str = Output()`.")

    @property
    def answer_(self) -> Answer[Any]:
        """The run that this came from: run_id, cost_usd, usage.

        Raises:
            InvalidInput: it was made by hand and comes from no run.

        """
        if self._answer is None:
            raise InvalidInput("this was made by hand, not by `predict`: no run stands behind it")
        answer: Answer[Any] = self._answer
        return answer


def is_signature(value: Any) -> bool:
    """Tell whether *value* is a signature that stands for an agent: a class with fields."""
    return isinstance(value, type) and issubclass(value, Signature) and bool(value.model_fields)


def agent_name(signature: type[Signature]) -> str:
    """Return the name of the agent that a signature becomes."""
    return str(signature._options.get("name") or signature.__name__)


def agent_of(signature: type[Signature]) -> Agent:
    """Return a new agent that answers as a signature says.

    Raises:
        ConfigurationError: it names no model, or an argument does not fit; the message says what to write.

    """
    from holdfast.agent import Agent

    options = {key: value for key, value in signature._options.items() if key != "name"}
    wrong = set(options) & {"instructions", "output"} or set(options) - set(inspect.signature(Agent).parameters)
    if wrong:
        raise ConfigurationError(
            f"signature {signature.__name__} takes no {', '.join(sorted(wrong))}: its arguments are those of Agent, "
            "but instructions are its docstring and the output is its fields."
        )
    if not options.get("model"):
        raise ConfigurationError(
            f'signature {signature.__name__} names no model: write `class {signature.__name__}(Signature, model="…")`, '
            "or let it inherit from one that does."
        )
    model = options.pop("model")
    return Agent(
        name=agent_name(signature),
        model=model,
        instructions=_instructions(signature),
        output=outputs_of(signature),
        **options,
    )


def outputs_of(signature: type[Signature]) -> type[BaseModel]:
    """Return the model of a signature's outputs alone, with the validators of these fields."""
    fields: dict[str, Any] = {}
    for name in _fields(signature, "output"):
        info = signature.model_fields[name]
        plain = copy.copy(info)
        plain.json_schema_extra = None
        fields[name] = (info.annotation, plain)
    checks: dict[str, Any] = {}
    for key, found in signature.__pydantic_decorators__.field_validators.items():
        names = [name for name in found.info.fields if name in fields]
        if names:
            decorate = field_validator(*names, mode=found.info.mode)  # pyright: ignore  # overloads
            checks[key] = decorate(_plain(getattr(signature, found.cls_var_name)))
    return create_model(signature.__name__, __validators__=checks, __module__=signature.__module__, **fields)


def _plain(bound: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that takes as many arguments as a bound validator: pydantic counts them."""
    count = len(inspect.signature(bound).parameters)
    if count == 1:
        return lambda value: bound(value)
    if count == 2:  # with its information, or a wrapped handler
        return lambda value, second: bound(value, second)
    return lambda value, handler, info: bound(value, handler, info)


def message_of(signature: type[Signature], inputs: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the inputs validated, as JSON, and the message that carries them.

    Raises:
        InvalidInput: one is missing, unknown or does not fit.

    """
    wanted = _fields(signature, "input")
    unknown = [name for name in inputs if name not in wanted]
    if unknown:
        known = ", ".join(wanted) or "none"
        raise InvalidInput(f"{signature.__name__} has no input {', '.join(unknown)}; its inputs are: {known}")
    fields: dict[str, Any] = {}
    for name in wanted:
        info = signature.model_fields[name]
        fields[name] = (info.annotation, info)
    try:
        model: type[BaseModel] = create_model(f"{signature.__name__}Inputs", **fields)
        given = model.model_validate(inputs).model_dump(mode="json")
    except ValidationError as exc:
        lines = [f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}" for error in exc.errors()]
        raise InvalidInput(f"the inputs do not fit {signature.__name__}: {'; '.join(lines)}") from None
    return given, json.dumps(given, ensure_ascii=False, indent=2)


def check_inputs(message_id: str, given: dict[str, Any], asked: str | None) -> None:
    """Make sure that a message id names these inputs: *asked* is the message that it named first, if it was stored.

    An input that came to the signature since, or was dropped, is no difference.

    Raises:
        InvalidInput: it named others.

    """
    before = json.loads(asked) if asked is not None else {}
    other = [name for name in given if name in before and before[name] != given[name]]
    if other:
        raise InvalidInput(
            f"message id {message_id!r:.80} was used with other inputs before ({', '.join(other)}): what came of those "
            "is no answer to these. Use another id."
        )


def instance_of(signature: type[S], inputs: dict[str, Any], answer: Answer[Any]) -> S:
    """Return the signature filled with inputs and answer.

    Raises:
        OutputInvalid: it does not fit this signature: its worker had another, or a validator over all of it refuses.

    """
    try:
        made = signature.model_validate({**inputs, **answer.output}, by_name=True, by_alias=True)
    except (ValidationError, TypeError) as exc:
        raise OutputInvalid(
            f"run {answer.run_id} was answered, but not as {signature.__name__} is here: {exc}"
        ) from None
    made._answer = answer
    return made


def _side(signature: type[Signature], name: str) -> str | None:
    extra = signature.model_fields[name].json_schema_extra
    side = extra.get(_SIDE) if isinstance(extra, dict) else None
    return side if isinstance(side, str) else None


def _fields(signature: type[Signature], side: str) -> list[str]:
    return [name for name in signature.model_fields if _side(signature, name) == side]


def _instructions(signature: type[Signature]) -> str:
    said = inspect.cleandoc(signature.__dict__.get("__doc__") or "").strip()
    lines = [said] if said else []
    described = []
    for name in _fields(signature, "input"):
        about = signature.model_fields[name].description
        described.append(f"- {name}: {about}" if about else f"- {name}")
    if described:
        lines += ["The message is a JSON object with these inputs:\n" + "\n".join(described)]
    return "\n\n".join(lines)

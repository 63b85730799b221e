"""The script of a model server: which reply comes to which request. Tests write it in YAML; the server reads it.

    model: test-model                  # optional: the model the server lists
    latency: 0.01                      # optional: seconds before every reply
    conversations:                     # the first whose `when` matches answers
      - when: order 17                 # in the last user message: a substring, any case, or /a regex/;
        replies:                       #   or {user: …, system: …, thread: …}, where thread is every text sent
          - call: {order_status: {order_id: "17"}}
          - fault: {status: 429, retry_after: 1}
            say: Order 17 was delivered damaged.
      - replies:                       # without `when`: whatever no other conversation takes
          - repeat: 100
            call: [{look: {page: "{{n}}"}}, {look: {page: "x"}}]
          - say: "The tool said: {{last_tool}}"

A reply is chosen by the request alone: by how many assistant messages follow its last user message. So a request that
is sent again gets the same reply, whatever was killed in between. Only faults count: each comes `times` times (1) for
one and the same request, then the next fault, then the reply.

A fault is one or more of: `status` with `retry_after` (seconds, or any text) and `message`; `cut_after` so many chunks,
with `clean: true` closing the stream properly yet too early; `bad_json`, the arguments of calls cut in half; `latency`
in seconds. `{{n}}` is the number of the reply, inside a `repeat` that of the repetition, from 1; `{{user}}` the last
user message; `{{last_tool}}` the last tool result.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from holdfast.errors import ConfigurationError

__all__ = ["Conversation", "Fault", "Reply", "Script", "Turn"]

Json = dict[str, Any]
Place = tuple[str | int, ...]


class _Part(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)


class Fault(_Part):
    """What goes wrong before, or instead of, a reply."""

    status: int | None = Field(default=None, ge=400, le=599)
    retry_after: float | str | None = None
    message: str | None = None
    code: str | None = Field(default=None, description="OpenAI's error code, such as context_length_exceeded")
    cut_after: int | None = Field(default=None, ge=0)
    clean: bool = False
    bad_json: bool = False
    latency: float | None = Field(default=None, ge=0)
    times: int | Literal["always"] = 1

    @model_validator(mode="after")
    def _something(self) -> Fault:
        if self.status is None and self.cut_after is None and not self.bad_json and self.latency is None:
            raise ValueError("a fault needs one of status, cut_after, bad_json, latency")
        return self


class Reply(_Part):
    """One reply of the model: what it says, what it calls, what goes wrong first."""

    say: str | None = None
    call: list[tuple[str, Json | str]] = []
    fault: list[Fault] = []
    repeat: int | Literal["forever"] = 1
    latency: float | None = Field(default=None, ge=0, description="seconds before the reply, every time")
    pace: float = Field(default=0.0, ge=0, description="seconds between the chunks of a stream")
    finish: str | None = Field(default=None, description="the finish_reason, when not stop or tool_calls")
    usage: tuple[int, int] | tuple[int, int, int] | None = Field(
        default=None, description="input, output, cached tokens"
    )

    @field_validator("call", mode="before")
    @classmethod
    def _calls(cls, value: Any) -> Any:
        calls: list[tuple[str, Any]] = []
        for entry in value if isinstance(value, list) else [value]:
            if not isinstance(entry, dict) or not entry:
                raise ValueError("write a call as {tool: {argument: value}}, or a list of such calls")
            for name, arguments in entry.items():
                if arguments is not None and not isinstance(arguments, (dict, str)):
                    raise ValueError(f"the arguments of {name} must be a mapping, or raw text to send as it is")
                calls.append((str(name), {} if arguments is None else arguments))
        return calls

    @field_validator("fault", mode="before")
    @classmethod
    def _faults(cls, value: Any) -> Any:
        return value if isinstance(value, list) else [value]

    @model_validator(mode="after")
    def _something(self) -> Reply:
        if self.say is None and not self.call and not self.fault:
            raise ValueError("a reply needs one of say, call, fault")
        return self


class When(_Part):
    """Which requests a conversation takes: all that is given must be found."""

    user: str | None = None
    system: str | None = None
    thread: str | None = None

    def matches(self, request: Json) -> bool:
        """Tell whether the request fits. Regexes ignore case as substrings do."""
        messages = request.get("messages") or []
        texts = {
            "user": _last(messages, "user"),
            "system": "\n".join(_text(m) for m in messages if m.get("role") in ("system", "developer")),
            "thread": "\n".join(_text(m) for m in messages),
        }
        return all(_found(wanted, texts[name]) for name, wanted in self.model_dump(exclude_none=True).items())

    @field_validator("user", "system", "thread")
    @classmethod
    def _regex(cls, value: str | None) -> str | None:
        if value is not None and (pattern := _as_regex(value)) is not None:
            try:
                re.compile(pattern)
            except re.error as exc:
                raise ValueError(f"{value} is no regular expression: {exc}") from None
        return value


class Conversation(_Part):
    """The replies to one kind of message."""

    when: When = When()
    replies: list[Reply] = Field(min_length=1)

    @field_validator("when", mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"user": str(value)} if isinstance(value, (str, int, float)) else value


class Turn(BaseModel):
    """The reply chosen for a request, and where in the script it stands."""

    reply: Reply
    conversation: int
    index: int
    n: int


class Script(_Part):
    """A whole script. Make one with `Script.parse`, `Script.load` or `Script.of`."""

    model: str = "test-model"
    latency: float = Field(default=0.0, ge=0)
    conversations: list[Conversation] = Field(min_length=1)

    @classmethod
    def load(cls, path: Path) -> Script:
        """Read a script from a YAML file.

        Raises:
            ConfigurationError: it cannot be read, or is wrong; the message names the line.

        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(f"The script {path} could not be read: {exc}. Give a YAML file.") from exc
        return cls.parse(text, name=str(path))

    @classmethod
    def parse(cls, text: str, *, name: str = "script") -> Script:
        """Read a script from YAML text; *name* is what messages call it.

        Raises:
            ConfigurationError: it is wrong; the message names the line.

        """
        lines: dict[Place, int] = {}
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            value = _plain(node, (), lines) if node is not None else None
        except yaml.YAMLError as exc:
            mark = getattr(exc, "problem_mark", None)
            at = f", line {mark.line + 1}" if mark else ""
            raise ConfigurationError(f"{name}{at}: {getattr(exc, 'problem', None) or exc}. Mend the YAML.") from exc
        return cls.of(value, name=name, lines=lines)

    @classmethod
    def of(cls, value: Any, *, name: str = "script", lines: dict[Place, int] | None = None) -> Script:
        """Make a script from plain data of the same form.

        Raises:
            ConfigurationError: it is wrong; the message names the place.

        """
        if not isinstance(value, dict):
            raise ConfigurationError(f"{name}: must be a mapping with `conversations`, each with its `replies`.")
        try:
            return cls.model_validate(value)
        except ValidationError as exc:
            problems = []
            for error in exc.errors():
                place = tuple(part for part in error["loc"] if not str(part).startswith(("function-", "tuple[")))
                known = place
                while known and known not in (lines or {}):
                    known = known[:-1]
                line = f", line {lines[known]}" if lines and known in lines else ""
                why = error["msg"].removeprefix("Value error, ")
                problems.append(f"{name}{line}: {_dotted(place)}: {why}.")
            raise ConfigurationError("\n".join(dict.fromkeys(problems))) from None

    def choose(self, request: Json) -> Turn | str:
        """Return the reply to a request, or the reason why the script has none."""
        messages = request.get("messages") or []
        after = next((i for i in reversed(range(len(messages))) if messages[i].get("role") == "user"), -1)
        done = sum(1 for message in messages[after + 1 :] if message.get("role") == "assistant")
        for number, conversation in enumerate(self.conversations):
            if conversation.when.matches(request):
                return self._turn(number, conversation, done)
        return f"no conversation of the script takes the message {_last(messages, 'user')[:200]!r}"

    @staticmethod
    def _turn(number: int, conversation: Conversation, done: int) -> Turn | str:
        start = 0
        for index, reply in enumerate(conversation.replies):
            if reply.repeat == "forever" or done < start + reply.repeat:
                n = done + 1 if reply.repeat == 1 else done - start + 1
                return Turn(reply=reply, conversation=number, index=index, n=n)
            start += reply.repeat
        return f"conversation {number + 1} of the script has {start} replies, this request asks for number {done + 1}"


def render(value: Any, request: Json, n: int) -> Any:
    """Fill the templates in every text of *value*."""
    if isinstance(value, str):
        messages = request.get("messages") or []
        texts = {"n": str(n), "user": _last(messages, "user"), "last_tool": _last(messages, "tool")}
        return re.sub(r"\{\{\s*(n|user|last_tool)\s*\}\}", lambda found: texts[found[1]], value)
    if isinstance(value, dict):
        return {name: render(part, request, n) for name, part in value.items()}
    if isinstance(value, list):
        return [render(part, request, n) for part in value]
    return value


def arguments_text(arguments: Json | str, request: Json, n: int) -> str:
    """Return the JSON text of a call's arguments; a text is sent as it is."""
    filled = render(arguments, request, n)
    return filled if isinstance(filled, str) else json.dumps(filled, ensure_ascii=False)


def _plain(node: yaml.Node, place: Place, lines: dict[Place, int]) -> Any:
    """Return the node's value and note on which line each place stands."""
    lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        return [_plain(child, (*place, i), lines) for i, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        values: Json = {}
        for key_node, child in node.value:
            key = str(key_node.value)
            if key in values:
                raise yaml.constructor.ConstructorError(problem=f"{key} twice", problem_mark=key_node.start_mark)
            values[key] = _plain(child, (*place, key), lines)
            lines[(*place, key)] = key_node.start_mark.line + 1
        return values
    loader = yaml.SafeLoader("")
    try:
        value = loader.construct_object(node, deep=True)
    finally:
        loader.dispose()
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(node.value)


def _dotted(place: Place) -> str:
    text = ""
    for part in place:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "script"


def _as_regex(wanted: str) -> str | None:
    return wanted[1:-1] if len(wanted) > 2 and wanted.startswith("/") and wanted.endswith("/") else None


def _found(wanted: str, text: str) -> bool:
    pattern = _as_regex(wanted)
    if pattern is not None:
        return re.search(pattern, text, re.IGNORECASE) is not None
    return wanted.lower() in text.lower()


def _text(message: Json) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _last(messages: list[Json], role: str) -> str:
    return next((_text(message) for message in reversed(messages) if message.get("role") == role), "")

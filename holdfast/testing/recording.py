"""A recorded run: its histories, its model's replies, its calls, in one file. `holdfast export` and `replay` use it.

It is meant to be committed beside tests. What tools returned is not in it, but for the 64 characters that a history
has; names of machines and processes are taken out, and so are the values of variables that are named like secrets.
"""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from holdfast import __version__
from holdfast.contracts import AgentDefinition
from holdfast.errors import ConfigurationError, InvalidInput
from holdfast.handles import RunHandle
from holdfast.secrets import Mask
from holdfast.testing.calls import look

__all__ = ["RecordedCall", "RecordedReply", "RecordedRun", "Recording", "clean_history", "record"]

Json = dict[str, Any]

FORMAT = 1
_IDENTITY = "recorder"
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|DATABASE_URL|DSN", re.IGNORECASE)
_SHORTEST = 8  # characters: what is named like a secret may be an ordinary word


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class RecordedCall(_Part):
    """A tool call: what the model asked, and what became of it."""

    tool: str
    arguments: str
    state: str


class RecordedReply(_Part):
    """One reply of the model, and which of the run's definitions it was asked under."""

    definition: int
    say: str | None = None
    calls: list[RecordedCall] = []
    usage: tuple[int, int] = (0, 0)


class RecordedRun(_Part):
    """One run, or that of an agent it asked."""

    run_id: str
    workflow_id: str
    agent: str
    message: str
    state: str
    error: str | None = None
    answer: str | None = None
    rounds: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    definitions: list[AgentDefinition] = []
    replies: list[RecordedReply] = []
    histories: list[Json] = []


class Recording(_Part):
    """A run with those of the agents it asked, the run itself first."""

    format: int = FORMAT
    holdfast: str
    runs: list[RecordedRun]

    @property
    def run(self) -> RecordedRun:
        """The run itself."""
        return self.runs[0]

    def script(self) -> Json:
        """Return the model's replies as a script of the model server."""
        conversations = []
        for run in self.runs:
            replies = []
            for reply in run.replies:
                one: Json = {"usage": list(reply.usage), "say": reply.say}
                if not reply.calls:
                    one["say"] = reply.say or ""
                else:
                    one["call"] = [{call.tool: _arguments(call.arguments)} for call in reply.calls]
                replies.append(one)
            if replies:
                conversations.append({"since": run.message, "replies": replies})
        return {"conversations": conversations}

    def text(self) -> str:
        """Return it as the text of a file."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False, indent=1) + "\n"

    def save(self, path: Path) -> None:
        """Write it to a file, in place of what is there.

        Raises:
            InvalidInput: the file cannot be written.

        """
        fresh = path.with_name(f"{path.name}.new")
        try:
            fresh.write_text(self.text(), encoding="utf-8")
            fresh.replace(path)
        except OSError as exc:
            raise InvalidInput(f"{path} cannot be written: {exc}. Name another file.") from exc

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read a file that `holdfast export` wrote.

        Raises:
            ConfigurationError: it cannot be read, or is no recording.

        """
        try:
            found = cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(f"The recording {path} could not be read: {exc}.") from exc
        except ValidationError as exc:
            first = exc.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigurationError(
                f"{path} is no recording: {where}: {first['msg']}. `holdfast export RUN --out FILE` writes one."
            ) from None
        if found.format > FORMAT or not found.runs:
            raise ConfigurationError(
                f"{path} was written by Holdfast {found.holdfast} in a form that {__version__} does not know. "
                "Record the run again, or update Holdfast."
            )
        return found


def _arguments(text: str) -> Json | str:
    """Return arguments as a script has them; what is no JSON object is sent as the text it was."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, dict) else text


async def record(run: RunHandle) -> Recording:
    """Read a run that has ended, and those of the agents it asked, into a recording.

    Raises:
        InvalidInput: it has not ended.
        StackError: a server does not answer.

    """
    hide = _hider()
    found: list[RecordedRun] = []
    waiting = [run]
    while waiting:
        one = waiting.pop(0)
        found.append(await _recorded(one, hide))
        waiting += [type(run)(run._link, child.run_id, child.thread) for child in await one.children()]
    return Recording(holdfast=__version__, runs=found)


async def _recorded(run: RunHandle, hide: Hider) -> RecordedRun:
    status = await run.status()
    if not status.ended:
        raise InvalidInput(f"run {run.run_id} has not ended ({status.state}): it can be recorded when it has.")
    seen = await look(run)
    asked = await run.definitions()
    definitions: list[AgentDefinition] = []
    replies = []
    made = {call.step: call for call in seen.calls}
    messages = {message.seq: message for message in await _all_messages(run)}
    for event in seen.events:
        if event.kind != "replied":
            continue
        definition = asked.get(int(event.data["step"]))
        if definition is not None and definition not in definitions:
            definitions.append(definition)
        reply = messages.get(int(event.data["seq"]))
        body = (reply.body if reply is not None else None) or {}
        told = [call["function"] for call in body.get("tool_calls") or []]
        steps = [int(call["step"]) for call in event.data.get("calls") or []]
        replies.append(
            RecordedReply(
                definition=definitions.index(definition) if definition is not None else -1,
                say=hide(body["content"]) if body.get("content") else None,
                calls=[
                    RecordedCall(tool=each["name"], arguments=hide(each["arguments"]), state=made[step].state)
                    for each, step in zip(told, steps, strict=False)
                ],
                usage=(int(event.data.get("tokens_in", 0)), int(event.data.get("tokens_out", 0))),
            )
        )
    return RecordedRun(
        run_id=run.run_id,
        workflow_id=run.workflow_id,
        agent=definitions[0].name if definitions else status.agent,
        message=hide(status.message or ""),
        state=status.state,
        error=hide(status.error) if status.error else None,
        answer=hide(seen.text) if seen.text is not None else None,
        rounds=status.rounds,
        tokens=status.tokens,
        cost_usd=status.cost_usd,
        definitions=[AgentDefinition.model_validate(hide(each.model_dump(mode="json"))) for each in definitions],
        replies=replies,
        histories=[hide(clean_history(history.to_json_dict())) for history in await run.histories()],
    )


async def _all_messages(run: RunHandle) -> list[Any]:
    found: list[Any] = []
    while page := await run.messages(after=found[-1].seq if found else 0):
        found += page
    return found


def clean_history(value: Any) -> Any:  # Any: JSON
    """Return a history's JSON without identities and stack traces, sticky queues named alike, names in order."""
    if isinstance(value, list):
        return [clean_history(part) for part in value]
    if not isinstance(value, dict):
        return value
    kept = {name: clean_history(value[name]) for name in sorted(value) if name != "stackTrace"}
    if "identity" in kept:
        kept["identity"] = _IDENTITY
    if kept.get("kind") == "TASK_QUEUE_KIND_STICKY":
        kept["name"] = f"{_IDENTITY}-sticky"
    return kept


class Hider:
    """Replaces known secrets in texts, wherever in a value they are, payloads of histories included."""

    def __init__(self, secrets: list[str]) -> None:
        """Know the secrets."""
        self._mask = Mask(secrets, shortest=_SHORTEST)

    def __call__(self, value: Any) -> Any:  # Any: JSON, and what comes out has its shape
        """Return *value* with `***` for each secret."""
        if isinstance(value, str):
            return self._mask(value)
        if isinstance(value, list):
            return [self(part) for part in value]
        if not isinstance(value, dict):
            return value
        if "metadata" in value and isinstance(value.get("data"), str):
            plain = base64.b64decode(value["data"]).decode("utf-8", "surrogateescape")
            data = base64.b64encode(self(plain).encode("utf-8", "surrogateescape")).decode()
            return {**value, "data": data}
        return {name: self(part) for name, part in value.items()}


def _hider() -> Hider:
    """Know the values of all variables that are named like secrets, in the environment and in `.env` here."""
    from dotenv import dotenv_values

    known: dict[str, str | None] = dict(os.environ)
    if Path(".env").is_file():
        known |= {f".env {name}": value for name, value in dotenv_values(".env", interpolate=False).items()}
    return Hider([value for name, value in known.items() if value and _SECRET.search(name)])

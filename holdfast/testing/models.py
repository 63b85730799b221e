"""The model server of a test run: one for the session, with another script for each test. The fixture gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.errors import ConfigurationError
from holdfast.testing.model_server import ModelServer
from holdfast.testing.recording import Recording
from holdfast.testing.script import Conversation, Script, Turn

__all__ = ["ScriptedModels"]

_NOTHING = {"conversations": [{"when": "/(?!)/", "replies": [{"say": "-"}]}]}  # fits no message


class ScriptedModels(ModelServer):
    """A model server whose script is changed while it runs.

    `journal` has the requests since the test began, as `ModelServer` notes them.
    """

    def __init__(self) -> None:
        """Know no reply yet."""
        super().__init__(Script.of(_NOTHING))
        self._played: list[Conversation] = []
        self._replies: list[Conversation] = []

    def play(self, script: Script | dict[str, Any] | str | Path | Recording) -> None:
        """Reply by this script from now on: a `Script`, YAML text, plain data, the path of YAML or of a recording.

        Raises:
            ConfigurationError: it is wrong; the message names the line.

        """
        if isinstance(script, Path) and script.suffix == ".json":
            script = Recording.load(script)
        if isinstance(script, Recording):
            read = Script.of(script.script(), name="the recording")
        elif isinstance(script, Script):
            read = script
        elif isinstance(script, Path):
            read = Script.load(script)
        else:
            read = Script.parse(script) if isinstance(script, str) else Script.of(script)
        self._played = list(read.conversations)
        self._put()

    def reply(self, text: str, replies: list[Any]) -> None:
        """Give these replies, as a script has them or plain text, to what follows the message *text*.

        Raises:
            ConfigurationError: one is wrong; the message names its place.

        """
        if not replies:
            raise ConfigurationError("replies is empty: give at least one, such as 'Done.' or {'call': {…}}.")
        made = [{"say": each} if isinstance(each, str) else each for each in replies]
        [conversation] = Script.of({"conversations": [{"since": text, "replies": made}]}, name="replies").conversations
        self._replies.insert(0, conversation)
        self._put()

    def reset(self) -> None:
        """Forget scripts, requests and faults: the next test begins."""
        self._played, self._replies = [], []
        self.journal.clear()
        self._faults.clear()
        self._put()

    def _put(self) -> None:
        conversations = [*self._replies, *self._played]
        self.script = Script(conversations=conversations) if conversations else None

    async def _turn(self, body: dict[str, Any]) -> Turn | str:
        if self.script is None:
            return (
                "nothing is scripted: give run_agent(…, replies=[…]) or model_server.play(script), or mark the test "
                'holdfast(model="own") to use the models that the agents name'
            )
        return await super()._turn(body)

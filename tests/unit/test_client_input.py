"""What the client refuses before anything is sent, and how it tries again what may be tried again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from holdfast.client import Client, _check_text, _no_such_agent
from holdfast.contracts import Receipt
from holdfast.errors import DecisionRefused, InvalidInput, StackError, StackNotRunning, UnknownRun
from holdfast.handles import check_prefix
from holdfast.link import NotRunning
from holdfast.settings import load_settings
from holdfast.wire import Wire

RECEIPT = Receipt(decision_id="d", run_id="r")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("a" * 101, "101 bytes"),
        ("é" * 51, "102 bytes"),
        ("a\0b", "NUL"),
        ("half a \ud800 pair", "Unicode"),
        (17, "must be text"),
    ],
)
def test_a_text_that_no_agent_could_answer_is_refused(text: Any, words: str) -> None:
    """The limit counts bytes of UTF-8, and each refusal says what is wrong."""
    with pytest.raises(InvalidInput, match=words):
        _check_text(text, 100)


def test_an_unknown_agent_is_told_the_known_ones() -> None:
    """The closest name comes as a question, all names as a list."""
    said = _no_such_agent("suport", ["clerk", "support"])
    assert "Did you mean 'support'?" in said
    assert "Known: clerk, support" in said
    assert "Did you mean" not in _no_such_agent("zzz", ["support"])
    assert "no worker has loaded any agent" in _no_such_agent("x", [])


@pytest.mark.parametrize("run", ["", "xyz", "1a80%", "1a80a918-8887-5bb8-92e3-b33d7b5fc885-0", "'; drop"])
def test_what_is_no_beginning_of_a_run_id_is_no_run(run: str) -> None:
    """Wildcards and other texts never reach the database."""
    with pytest.raises(UnknownRun):
        check_prefix(run)


def test_a_run_id_is_read_as_people_write_it() -> None:
    """Capitals and blanks around it do not matter."""
    assert check_prefix(" 1A80A918 ") == "1a80a918"


async def test_without_addresses_and_without_a_stack_the_client_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the folder, the command and the variables."""
    monkeypatch.delenv("TEMPORAL_ADDRESS", raising=False)
    with pytest.raises(StackNotRunning, match="holdfast dev"):
        await Client.connect(load_settings(home=tmp_path / "none"))


class Line(Wire):
    """A wire whose tries are scripted: each is an error to raise, or a receipt."""

    def __init__(self, *outcomes: Exception | Receipt, patience: float = 5.0) -> None:
        super().__init__(cast("TemporalClient", None), load_settings(client_patience=patience))
        self.outcomes = list(outcomes)
        self.tries = 0

    async def go(self) -> Receipt:
        """Send until it is taken."""

        async def send() -> Receipt:
            self.tries += 1
            outcome = self.outcomes[0] if len(self.outcomes) == 1 else self.outcomes.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return await self._insist(send)


def rpc(status: RPCStatusCode) -> RPCError:
    """Make an error of the connection to Temporal."""
    return RPCError("scripted", status, b"")


def refused(kind: str | None, message: str) -> WorkflowUpdateFailedError:
    """Make the refusal of an update."""
    return WorkflowUpdateFailedError(ApplicationError(message, type=kind))


async def test_a_lost_connection_is_tried_again() -> None:
    """Nothing is given up because a server restarts, or a workflow closes under the update."""
    line = Line(
        rpc(RPCStatusCode.UNAVAILABLE), refused("AcceptedUpdateCompletedWorkflow", "closed"), TimeoutError(), RECEIPT
    )
    assert await line.go() == RECEIPT
    assert line.tries == 4


async def test_patience_ends() -> None:
    """A server that stays away is named, and the message says that sending again is safe."""
    line = Line(rpc(RPCStatusCode.UNAVAILABLE), patience=0.2)
    with pytest.raises(StackError, match="safe"):
        await line.go()
    assert line.tries > 1


async def test_an_answer_that_never_comes_ends_too() -> None:
    """With no worker up, Temporal waits; the client does not wait for ever."""
    line = Line(patience=0.2)

    async def never() -> Receipt:
        await asyncio.Event().wait()
        return RECEIPT

    with pytest.raises(StackError, match="no worker serves"):
        await line._insist(never)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (refused("DecisionRefused", "decided already"), DecisionRefused),
        (refused("InvalidInput", "empty"), InvalidInput),
        (refused("ValueError", "odd"), InvalidInput),
        (refused(None, "odd"), InvalidInput),
        (rpc(RPCStatusCode.NOT_FOUND), NotRunning),
        (rpc(RPCStatusCode.PERMISSION_DENIED), StackError),
    ],
)
async def test_a_refusal_is_not_tried_again(error: Exception, kind: type[Exception]) -> None:
    """What the workflow or the server refuses comes out at once, as the class it means."""
    line = Line(error)
    with pytest.raises(kind):
        await line.go()
    assert line.tries == 1

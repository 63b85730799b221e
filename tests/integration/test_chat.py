"""`holdfast chat` on a pseudo terminal and on pipes, against real servers, a real worker and a scripted model."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.kit import PATIENCE, until
from tests.terminal import AGENTS, SCRIPT, Terminal, asked, on_a_terminal

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.world(AGENTS, SCRIPT)]

READY = "/help tells"
BACK = "come back with: holdfast chat support --thread c1"
DONE = "tokens · $?\x1b"  # the line behind an answer
CTRL_C = b"\x0b\x03"  # as keys, to a terminal that is raw; the helper sends a signal for Ctrl-C alone
ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>])")


async def chat(
    terminal: Terminal,
    *steps: tuple[str, bytes | Callable[[], Awaitable[object]]],
    agent: str = "support",
    thread: str = "c1",
    editor: Path | None = None,
) -> tuple[int, str]:
    """Talk at a terminal: when the first is seen, type the second. Return the exit code and all that was shown."""
    if editor is not None:
        terminal.extra = {"EDITOR": str(editor), "VISUAL": ""}
    code, seen = await on_a_terminal(terminal, ["chat", agent, "--thread", thread], list(steps))
    return code, ESCAPES.sub("", seen)


def script(folder: Path, text: str) -> Path:
    """Write an editor: a shell script that changes the file it is given."""
    path = folder / "editor.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


async def test_a_conversation_is_held_and_taken_up_again(terminal: Terminal) -> None:
    """Question, tool, answer, cost; days later the thread shows what was said and goes on."""
    code, seen = await chat(
        terminal,
        (READY, b"Where is order 17?\r"),
        (DONE, b"/cost\r"),
        ("1 run on this thread", b"/nonsense\r"),
        ("there is no /nonsense", b"/quit\r"),
    )
    assert code == 0
    assert 'order_status(order_id="17")' in seen
    assert BACK in seen
    code, seen = await chat(terminal, ("that was", b"and now?\r"), (DONE, b"\x04"))
    assert code == 0
    assert "> Where is order 17?" in seen
    assert seen.index("It says") < seen.index("that was")
    assert [run.state for run in await terminal.client.runs(thread="c1")] == ["done", "done"]


async def test_words_come_as_the_model_says_them(terminal: Terminal) -> None:
    """The reply under way is on the screen before it is whole, and stands there once in full after."""
    whole = "once upon a time there was an order that came late but came in the end and all were glad"
    _, seen = await chat(terminal, (READY, b"tell me a story\r"), (DONE, b"/quit\r"))
    assert seen.count(whole) == 1
    assert seen.index("once upon") < seen.index(whole)


async def test_lines_can_be_broken_and_pasted(terminal: Terminal) -> None:
    """A backslash at the end, Ctrl-J and a paste make one message of several lines."""
    text = b"hi\\\rsecond\nthird \x1b[200~pasted\nlines\x1b[201~\r"
    await chat(terminal, (READY, text), (DONE, b"/quit\r"))
    (run,) = await terminal.client.runs()
    status = await (await terminal.client.get(run.run_id)).status()
    assert status.message == "hi\nsecond\nthird pasted\nlines"


async def test_a_call_is_approved_rejected_and_left_open(terminal: Terminal) -> None:
    """/approve approves, /reject with a reason rejects, and the chat that was left comes back to the question."""
    code, seen = await chat(
        terminal, (READY, b"refund order 17\r"), ("approve refund, step", b"/approve\r"), ("for 17", b"\x04")
    )
    assert code == 0
    _, seen = await chat(
        terminal,
        (READY, b"refund it again\r"),
        ("approve refund, step", b"/reject not this week\r"),
        ("Reason: not this week", b"/quit\r"),
    )
    assert "refund rejected" in seen
    code, seen = await chat(terminal, (READY, b"refund once more\r"), ("approve refund, step", b"/quit\r"))
    assert "goes on" in seen
    code, seen = await chat(terminal, ("approve refund, step", b"/approve\r"), ("refunded 40.0 for 17", b"\x04"))
    assert code == 0
    assert [run.state for run in await terminal.client.runs(thread="c1")][1:] == ["done", "done"]


async def test_a_yes_that_may_be_for_the_model_approves_nothing(terminal: Terminal) -> None:
    """A bare yes at an open question is neither sent nor taken for an approval; a command that names a step is."""
    await chat(
        terminal,
        (READY, b"refund order 17\r"),
        ("approve refund, step", b"yes\r"),
        ("nothing was decided", b"/approve 999\r"),
        ("does not wait", b"/reject 3 no\r"),
        ("Reason: no", b"/quit\r"),
    )
    (run,) = await terminal.client.runs(thread="c1")
    (approval,) = await (await terminal.client.get(run.run_id)).approvals()
    assert approval.state == "rejected"


async def test_arguments_are_edited_until_they_fit(terminal: Terminal, tmp_path: Path) -> None:
    """What does not fit comes back with the reason above it; the difference is shown before it is sent."""
    editor = script(
        tmp_path,
        f'cat "$1" >> {tmp_path}/seen\n'
        'if grep -q many "$1"; then sed -i \'s/"many"/25/\' "$1"; else sed -i \'s/: 40/: "many"/\' "$1"; fi',
    )
    code, seen = await chat(
        terminal,
        (READY, b"refund order 17\r"),
        ("approve refund, step", b"/edit\r"),
        ("send this?", b"y\r"),
        ("refunded 25.0 for 17", b"/quit\r"),
        editor=editor,
    )
    assert code == 0
    assert '-  "amount": 40' in seen
    assert '+  "amount": 25' in seen
    shown = (tmp_path / "seen").read_text()
    assert "// amount: number, required" in shown
    assert "// NOT SENT: the arguments do not fit\n// - amount: 'many' is not of type 'number'" in shown
    (run,) = await terminal.client.runs()
    (approval,) = await (await terminal.client.get(run.run_id)).approvals()
    assert (approval.edited, approval.args) == (True, {"order_id": "17", "amount": 25})


async def test_an_editor_that_changes_nothing_sends_nothing(terminal: Terminal, tmp_path: Path) -> None:
    """Saved as it was, or emptied, or failed: the call goes on waiting, and the question stands."""
    run = await asked(terminal.client)
    for text, words in (
        ("true", "nothing was changed"),
        (': > "$1"', "nothing was changed"),
        ("exit 3", "with code 3"),
    ):
        code, seen = await chat(
            terminal, ("approve refund, step", b"/edit\r"), (words, b"/quit\r"), editor=script(tmp_path, text)
        )
        assert code == 0, seen
    assert [approval.state for approval in await run.approvals()] == ["pending"]
    await run.stop()


async def test_what_is_typed_meanwhile_joins_the_run(terminal: Terminal) -> None:
    """A line that is no answer to the question is said to the run, which takes it at its next model call."""

    async def taken() -> None:
        async def two() -> bool:
            return len(await terminal.client.runs(thread="c1")) == 2

        await until(two, "the message is taken")

    await chat(
        terminal,
        (READY, b"refund order 17\r"),
        ("approve refund, step", b"and thank you\r"),
        ("approve refund, step", taken),
        ("approve refund, step", b"/approve\r"),
        ("has joined", b""),
        (DONE, b"/quit\r"),
    )
    assert [run.state for run in await terminal.client.runs(thread="c1")] == ["merged", "done"]


async def test_ctrl_c_stops_the_run_and_keeps_the_chat(terminal: Terminal) -> None:
    """What is under way ends as stopped; the chat goes on."""
    code, seen = await chat(
        terminal,
        (READY, b"slow\r"),
        ("thinking", CTRL_C),
        ("stopped: stopped by", b"/cost\r"),
        ("1 run on this thread", b"/quit\r"),
    )
    assert code == 0
    assert BACK in seen
    assert [run.state for run in await terminal.client.runs(thread="c1")] == ["stopped"]


async def test_ctrl_c_twice_leaves(terminal: Terminal) -> None:
    """With nothing under way the first says so, and the second is heard by its exit code."""
    code, seen = await chat(terminal, (READY, CTRL_C), ("Ctrl-C again leaves", CTRL_C))
    assert code == 130
    assert BACK in seen


async def test_threads_are_changed(terminal: Terminal) -> None:
    """Not under a run; a thread of another agent is refused; a new one begins empty."""
    await terminal.client.start("clerk", "hi", thread="theirs")
    code, seen = await chat(
        terminal,
        (READY, b"hello\r"),
        (DONE, b"/thread theirs\r"),
        ("belongs to agent 'clerk'", b"/thread other\r"),
        ("thread other", b"hello there\r"),
        ("hello there", b"/thread\r"),
        ("thread other; from elsewhere", b"/quit\r"),
    )
    assert code == 0
    assert "come back with: holdfast chat support --thread other" in seen


async def test_a_pipe_is_a_message_per_line(terminal: Terminal) -> None:
    """Answers on standard output, the rest on standard error; with --json every event of every run."""
    plain = await terminal("chat", "support", "--thread", "pipe", stdin=b"one\n\ntwo\n")
    assert plain.code == 0
    assert plain.out == 'It says {"order":"17","status":"delivered damaged"}\n' * 2
    assert "thread pipe" in plain.err
    told = await terminal(
        "chat", "support", "--thread", "pipe", "--json", stdin=b"three\n" + b"x" * 5_000_000 + b"\nfour"
    )
    lines = [json.loads(line) for line in told.out.splitlines()]
    assert [line["kind"] for line in lines].count("answer") == 2
    assert [line["error"][:11] for line in lines if line["kind"] == "refused"] == ["the message"]
    assert (told.code, told.err) == (1, "")
    assert len(await terminal.client.runs(thread="pipe")) == 4


async def test_whom_there_is_not_to_talk_to(terminal: Terminal) -> None:
    """An unknown agent and a thread of another are told at once, before anything is typed."""
    said = await terminal("chat", "suport")
    assert (said.code, "Did you mean 'support'?" in said.err) == (2, True)
    await terminal.client.start("clerk", "hi", thread="c1")

    async def stored() -> bool:
        return bool(await terminal.client.runs())

    await until(stored, "the run is stored")
    said = await terminal("chat", "support", "--thread", "c1", "--json")
    assert json.loads(said.err)["error"]["type"] == "ThreadOwned"


async def test_an_approval_is_edited_from_another_terminal(terminal: Terminal, tmp_path: Path) -> None:
    """`approve --edit` opens the editor, shows the difference, asks, and approves; without a terminal it is refused."""
    run = await asked(terminal.client)
    refused = await terminal("approve", run.run_id, "--edit", "--json")
    assert json.loads(refused.err)["error"] == {
        "type": "InvalidInput",
        "message": "--edit opens an editor and asks before it sends: it needs a terminal. Else use --args.",
        "exit_code": 2,
    }
    terminal.extra = {"EDITOR": str(script(tmp_path, "sed -i 's/: 40/: 12/' \"$1\""))}
    code, seen = await on_a_terminal(terminal, ["approve", run.run_id, "--edit"], [("send this?", b"n\n")])
    assert (code, "nothing was sent" in seen) == (1, True)
    code, seen = await on_a_terminal(terminal, ["approve", run.run_id[:8], "--edit"], [("send this?", b"y\n")])
    assert (code, "amount=12" in seen) == (0, True)
    assert (await run.result(timeout=PATIENCE)).output.endswith("\nrefunded 12.0 for 17")


async def test_the_agents_below_are_heard_and_answered(terminal: Terminal, tmp_path: Path) -> None:
    """What a sub-agent does is shown inline; its question is answered, or its arguments edited, in the same place."""
    question = "approve book of booker, step 3?"
    code, seen = await chat(
        terminal,
        (READY, b"plan a trip\r"),
        (question, b"/approve\r"),
        ("Booker said: booked LH1", b"/quit\r"),
        agent="desk",
    )
    assert code == 0
    assert 'booker  book(flight="LH1")' in seen
    assert "booker answered" in seen
    _, seen = await chat(
        terminal,
        (READY, b"another: a trip\r"),
        (question, b"/edit\r"),
        ("send this?", b"y\r"),
        ("Booker said: [a person changed the arguments of this call: ", b""),
        ("booked LH2", b"/quit\r"),
        agent="desk",
        editor=script(tmp_path, 'sed -i s/LH1/LH2/ "$1"'),
    )
    code, seen = await chat(terminal, (READY, b"last: a trip\r"), (question, b"\x04"), agent="desk")
    assert "goes on" in seen
    code, seen = await chat(terminal, (question, b"/reject too late\r"), ("Reason: too late", b"/quit\r"), agent="desk")
    assert code == 0, seen


async def test_run_asks_for_the_agents_below_too(terminal: Terminal) -> None:
    """At the question of `run` that a sub-agent's call raises, y approves it and the run goes on to its answer."""
    code, seen = await on_a_terminal(terminal, ["run", "desk", "a trip"], [("approve book of booker?", b"y\n")])
    assert code == 0, seen
    assert "Booker said: booked LH1" in seen


async def test_a_conversation_that_is_handed_over_goes_on(terminal: Terminal) -> None:
    """What is said next is for the agent that took over; so it is days later, under the name it began with."""
    code, seen = await chat(
        terminal,
        (READY, b"my files\r"),
        (DONE, b"and more\r"),
        ('order_status(order_id="17")', b""),
        ("there is no tool", b"/quit\r"),
        agent="desk",
    )
    assert code == 0
    assert "handed over to clerk" in seen
    assert "come back with: holdfast chat clerk --thread c1" in seen
    code, seen = await chat(terminal, ("clerk answers", b"/thread new\r"), ("thread t-", b"/quit\r"), agent="desk")
    assert (code, "come back with: holdfast chat desk --thread t-" in seen) == (0, True)
    piped = await terminal("chat", "desk", "--thread", "pipe", stdin=b"my files\nand more\n")
    assert (piped.code, piped.out.count("\n")) == (0, 2), piped.err


async def test_run_offers_the_editor_too(terminal: Terminal, tmp_path: Path) -> None:
    """At the question of `run`, e edits; and it goes on with the answer."""
    terminal.extra = {"EDITOR": str(script(tmp_path, "sed -i 's/: 40/: 12/' \"$1\""))}
    code, seen = await on_a_terminal(
        terminal, ["run", "support", "refund order 17"], [("[e]dit", b"e\n"), ("send this?", b"y\n")]
    )
    assert code == 0
    assert "refunded 12.0 for 17" in seen

"""The command line against real servers and a real worker: ask, decide, watch, read."""

from __future__ import annotations

import json

import pytest

from holdfast.errors import RunEnded
from tests.kit import PATIENCE
from tests.terminal import AGENTS, SCRIPT, Terminal, asked, on_a_terminal

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.world(AGENTS, SCRIPT)]


async def test_the_answer_alone_is_on_standard_output(terminal: Terminal) -> None:
    """What happens goes to standard error; a pipe gets the answer, and --json gets every event and the answer last."""
    plain = await terminal("run", "support", "Where is order 17?")
    assert plain.code == 0
    assert plain.out == 'It says {"order":"17","status":"delivered damaged"}\n'
    assert 'order_status(order_id="17")' in plain.err
    assert "2 rounds" in plain.err
    lines = [
        json.loads(line) for line in (await terminal("run", "support", "-", "--json", stdin=b"hi")).out.splitlines()
    ]
    assert [line["kind"] for line in lines] == [
        *("accepted", "started", "replied", "tool_done", "replied", "ended"),
        "answer",
    ]
    assert [line["seq"] for line in lines[:-1]] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["output"].startswith("It says")
    assert lines[-1]["usage"]["input_tokens"] > 0


async def test_the_same_message_id_names_the_same_run(terminal: Terminal) -> None:
    """A command sent twice is answered once."""
    first = await terminal("run", "support", "hi", "--thread", "q", "--message-id", "m1", "--detach")
    again = await terminal("run", "support", "hi", "--thread", "q", "--message-id", "m1")
    assert first.out.strip()[:8] in again.err
    assert len(await terminal.client.runs(thread="q")) == 1


async def test_a_run_is_listed_shown_and_found_by_its_beginning(terminal: Terminal) -> None:
    """`runs`, `show` and `ui` tell the same run; --json gives all of it to programs."""
    started = await terminal("run", "support", "hi", "--detach", "--json")
    run_id = json.loads(started.out)["run_id"]
    await (await terminal.client.get(run_id)).result(timeout=PATIENCE)
    listed = await terminal("runs")
    assert run_id[:8] in listed.out
    assert "done" in listed.out
    shown = await terminal("show", run_id[:8])
    assert all(text in shown.out for text in (run_id, 'order_status(order_id="17")', "pure", "It says"))
    detail = json.loads((await terminal("show", run_id, "--json")).out)
    assert [step["tool"] for step in detail["steps_taken"]] == ["model", "order_status", "model"]
    assert detail["output"].startswith("It says")
    followed = await terminal("show", run_id[:8], "--follow")
    assert followed.out.startswith("It says")
    page = await terminal("ui", run_id[:8])
    assert f"/namespaces/default/workflows/{terminal.client.settings.tenant}%3A" in page.out


async def test_a_call_is_approved_once_from_another_terminal(terminal: Terminal) -> None:
    """Wrong edits are refused with the reason, the approval stands, and a second word is refused."""
    run = await asked(terminal.client)
    shown = await terminal("show", run.run_id)
    assert 'refund(order_id="17", amount=40)' in shown.out
    assert f"holdfast approve {run.run_id[:8]}" in shown.out
    wrong = await terminal("approve", run.run_id, "--args", '{"amount": "many"}')
    assert wrong.code == 2
    assert "edited arguments do not fit" in wrong.err
    unknown = await terminal("approve", run.run_id, "nonsense")
    assert unknown.code == 2
    done = await terminal("approve", run.run_id, "--args", '{"order_id": "17", "amount": 20}')
    assert done.code == 0, done.err
    assert "amount=20" in done.err
    assert (await run.result(timeout=PATIENCE)).output.endswith("\nrefunded 20.0 for 17")
    late = await terminal("approve", run.run_id)
    assert late.code == 2
    assert "no approval is pending" in late.err
    (approval,) = await run.approvals()
    assert (approval.state, approval.edited, approval.args) == ("approved", True, {"order_id": "17", "amount": 20})


async def test_the_model_sees_why_a_call_was_rejected(terminal: Terminal) -> None:
    """The reason given in the terminal is in the conversation."""
    run = await asked(terminal.client)
    assert (await terminal("reject", run.run_id, "--reason", "not this week")).code == 0
    assert "not this week" in (await run.result(timeout=PATIENCE)).output


async def test_a_run_is_stopped(terminal: Terminal) -> None:
    """`stop` says how it ended; then there is nothing to stop, and no answer."""
    run = await asked(terminal.client)
    stopped = await terminal("stop", run.run_id, "--reason", "enough")
    assert stopped.code == 0
    assert "stopped" in stopped.err
    assert (await terminal("stop", run.run_id)).code == 2
    with pytest.raises(RunEnded) as ended:
        await run.result(timeout=PATIENCE)
    assert ended.value.state == "stopped"
    followed = await terminal("show", run.run_id, "--follow", "--json")
    assert followed.code == 1
    assert json.loads(followed.out.splitlines()[-1])["output"] is None


WRONG: list[tuple[tuple[str, ...], bytes, str]] = [
    (("run", "suport", "hi"), b"", "Did you mean 'support'?"),
    (("run", "support", ""), b"", "empty"),
    (("run", "support", "-"), b"a" * 5_000_000, "5,000,000 bytes"),
    (("run", "support", "-"), b"\xff\xfe", "Unicode"),
    (("run", "support", "hi", "--thread", "a b"), b"", "not allowed"),
    (("show", "00000000"), b"", "No run begins with"),
    (("resolve", "00000000", "1", "--abandon"), b"", "No run begins with"),
    (("runs", "--state", "odd"), b"", "not known"),
]


async def test_wrong_input_stores_nothing(terminal: Terminal) -> None:
    """Each is told in one message, exit code 2, and no run or blob is left behind."""
    for argv, stdin, words in WRONG:
        said = await terminal(*argv, stdin=stdin)
        assert said.code == 2, argv
        assert words in said.err
    assert await terminal.client.runs() == []
    assert await terminal.world.rows("select id from blobs where tenant = $1", terminal.client.settings.tenant) == []


async def test_an_approval_is_answered_there_and_then(terminal: Terminal) -> None:
    """On a terminal, `run` asks, and goes on with the answer; what a model says first streams by."""
    code, seen = await on_a_terminal(terminal, ["run", "support", "refund order 17"], [("approve refund?", b"y\n")])
    assert code == 0
    assert "The tool said: refunded 40.0 for 17" in seen
    code, seen = await on_a_terminal(
        terminal, ["run", "support", "refund order 17"], [("approve refund?", b"n\n"), ("reason", b"too much\n")]
    )
    assert code == 0
    assert "Reason: too much" in seen


async def test_what_was_typed_before_the_question_is_no_answer(terminal: Terminal) -> None:
    """A line that waits when the question is shown is dropped; what is typed after it counts."""
    code, seen = await on_a_terminal(
        terminal,
        ["run", "support", "refund order 17"],
        [("run ", b"y\nyes\n"), ("approve refund?", b"n\n"), ("reason", b"typed after\n")],
    )
    assert code == 0
    assert "Reason: typed after" in seen


async def test_a_decision_made_elsewhere_ends_the_question(terminal: Terminal) -> None:
    """Whoever sits at the prompt is not asked about what another has decided."""

    async def elsewhere() -> None:
        (run,) = await terminal.client.runs()
        await (await terminal.client.get(run.run_id)).approve(actor="ann")

    code, seen = await on_a_terminal(terminal, ["run", "support", "refund order 17"], [("approve refund?", elsewhere)])
    assert code == 0
    assert "approved by ann" in seen


async def test_ctrl_c_leaves_the_run_going(terminal: Terminal) -> None:
    """The terminal says how to come back; the run stays where it was."""
    code, seen = await on_a_terminal(terminal, ["run", "support", "refund order 17"], [("approve refund?", b"\x03")])
    assert code == 130
    (run,) = await terminal.client.runs()
    assert run.state == "waiting"
    assert f"holdfast show {run.run_id[:8]} --follow" in seen

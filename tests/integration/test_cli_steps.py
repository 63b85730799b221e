"""What was sent and what came back, as the command line and the client show it: whole, verified, for each outcome."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from holdfast.errors import DecisionRefused, InvalidInput
from holdfast.handles import RunHandle
from holdfast.memory.database import connect
from tests.kit import PATIENCE, World, until
from tests.terminal import Terminal, on_a_terminal

AGENTS = '''
from holdfast import Agent, ToolError, tool

@tool(effect="pure")
def stock(item: str, warehouse: int = 1) -> dict:
    """Count an item in a warehouse."""
    return {"item": item, "count": -3, "note": "x" * 300 + " the very end"}

@tool(effect="pure")
def book() -> str:
    """Read the whole book."""
    return "begin " + "word " * 20000 + "the end"

@tool(effect="once")
def ship(item: str) -> str:
    """Ship an item."""
    raise ToolError(f"there is no {item}")

@tool(effect="once", approval="always")
def refund(order_id: str, amount: float) -> str:
    """Pay money back."""
    return f"refunded {amount} for {order_id}"

@tool(effect="once", timeout=1)
def letter(to: str) -> str:
    """Write a letter that is cut off."""
    raise TimeoutError("the connection was cut")

clerk = Agent(name="clerk", model="openai/test", instructions="Do it.", tools=[refund, letter])
desk = Agent(name="desk", model="openai/test", instructions="Delegate.", tools=[clerk])
boss = Agent(name="boss", model="openai/test", instructions="Lead.", tools=[desk])
keeper = Agent(name="keeper", model="openai/test", instructions="You keep the stock.", temperature=0.5,
               params={"api_key": "sk-not-to-be-shown", "top_p": 0.25}, tools=[stock, book, ship, refund])
'''

SCRIPT = """
conversations:
  - when: {system: Lead}
    replies:
      - call: {desk: {message: "{{user}}"}}
      - say: "{{last_tool}}"
  - when: {system: Delegate}
    replies:
      - call: {clerk: {message: "{{user}}"}}
      - say: "{{last_tool}}"
  - when: letter
    replies:
      - call: {letter: {to: ann}}
      - say: "{{last_tool}}"
  - when: refund
    replies:
      - call: {refund: {order_id: "17", amount: 40}}
      - say: "{{last_tool}}"
  - when: read
    replies:
      - call: {book: {}}
      - say: read
  - when: wrong
    replies:
      - call: [{ship: {item: moon}}, {stock: {warehouse: many}}, {fly: {}}]
      - say: I could not
  - replies:
      - call: {stock: {warehouse: 2, item: lamps}}
      - say: "There are three lamps."
"""

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.world(AGENTS, SCRIPT)]


async def _done(terminal: Terminal, text: str, agent: str = "keeper") -> RunHandle:
    run = await terminal.client.start(agent, text)
    await run.result(timeout=PATIENCE)
    return run


async def _waits(terminal: Terminal, text: str, agent: str = "keeper") -> RunHandle:
    run = await terminal.client.start(agent, text)
    await until(run.waiting, "something waits for a person")
    return run


async def test_a_request_is_shown_as_it_was_sent(world: World, terminal: Terminal) -> None:
    """`show RUN STEP` has all that the model server got: system prompt, settings, messages, tools; and the reply."""
    run = await _done(terminal, "How many lamps?")
    last = (await run.steps())[-1].step_no
    step = json.loads((await terminal("show", run.run_id, str(last), "--json")).out)
    sent = world.models.journal[-1]["body"]
    request = step["request"]
    assert request["verified"] is True
    messages = [{name: part for name, part in each.items() if part is not None} for each in request["messages"]]
    assert messages == sent["messages"], "all but nulls, which LiteLLM leaves out"
    assert request["tools"] == sent["tools"]
    assert (request["settings"]["temperature"], request["settings"]["params"]["top_p"]) == (0.5, 0.25)
    assert (sent["temperature"], sent["top_p"]) == (0.5, 0.25)
    assert request["settings"]["api_base"] == world.models.base_url
    assert step["reply"]["content"] == "There are three lamps."
    shown = await terminal("show", run.run_id[:8], str(last))
    for part in ("You keep the stock.", "How many lamps?", "Count an item in a warehouse.", "There are three lamps."):
        assert part in shown.out
    assert "the very end" in shown.out, "a tool's result in the request is not cut"
    assert f"sha256 {request['hash']}, verified" in shown.out
    assert "sk-not-to-be-shown" not in shown.out + json.dumps(step)


async def test_a_request_that_is_not_the_one_sent_says_so(world: World, terminal: Terminal) -> None:
    """When what a request is made of has changed in the database, it is shown, but not as what was sent."""
    run = await _done(terminal, "How many lamps?")
    conn = await connect(world.settings.database_url or "")
    try:
        await conn.execute(
            "update messages set body = replace(body::text, 'lamps', 'pears')::json "
            "where run_id = $1 and role = 'user'",
            run.run_id,
        )
    finally:
        await conn.close()
    first = (await run.steps())[0].step_no
    assert (await run.step(first)).request.verified is False  # type: ignore[union-attr]
    shown = await terminal("show", run.run_id, str(first))
    assert "This is not exactly what was sent" in shown.out
    assert "verified" not in shown.out


async def test_results_and_errors_are_seen_in_full(terminal: Terminal) -> None:
    """Under each step stands what came of it; a step and all JSON have it whole, in the model's order of arguments."""
    run = await _done(terminal, "How many lamps?")
    table = await terminal("show", run.run_id)
    assert '"count":-3' in table.out
    lines = (await terminal("show", run.run_id, "--steps")).out.splitlines()
    at = next(number for number, line in enumerate(lines) if 'stock(warehouse=2, item="lamps")' in line)
    assert lines[at + 1].strip().startswith('{"item":"lamps","count":-3')
    detail = json.loads((await terminal("show", run.run_id, "--json")).out)
    [call] = [step for step in detail["steps_taken"] if step["kind"] == "tool"]
    assert list(call["args"]) == ["warehouse", "item"]
    assert call["result"].endswith('the very end"}')
    followed = [
        json.loads(line) for line in (await terminal("show", run.run_id, "--follow", "--json")).out.splitlines()
    ]
    [done] = [event["data"] for event in followed if event["kind"] == "tool_done"]
    assert done["result"] == call["result"]
    shown = (await terminal("show", run.run_id, str(call["step_no"]))).out
    assert '"count": -3' in shown
    assert "the very end" in shown
    none = await terminal("show", run.run_id, "99")
    assert (none.code, "no step 99 is recorded" in none.err) == (2, True)
    with pytest.raises(InvalidInput, match="no step 99"):
        await run.step(99)


async def test_a_long_result_is_shown_whole_and_as_the_model_read_it(terminal: Terminal) -> None:
    """The model was given head and tail; a person reads all of it, and what the model was given."""
    run = await _done(terminal, "read")
    [call] = [step for step in await run.trace() if step.kind == "tool"]
    assert call.result is not None
    assert call.read_as is not None
    assert len(call.result) == len("begin " + "word " * 20000 + "the end")
    assert "bytes left out here" in call.read_as
    [trimmed] = [step for step in await run.trace(whole=False) if step.kind == "tool"]
    assert trimmed.result == call.read_as
    shown = await terminal("show", run.run_id, str(call.step_no))
    assert call.result in shown.out
    assert "what the model was given instead" in shown.out


async def test_what_failed_says_why(terminal: Terminal) -> None:
    """A tool's error, wrong arguments and an unknown tool each have a state and a reason without words for a model."""
    run = await _done(terminal, "wrong")
    ship, stock, fly = [step for step in await run.trace() if step.kind == "tool"]
    assert (ship.state, ship.error) == ("failed", "there is no moon")
    assert (stock.state, fly.state) == ("not_made", "not_made")
    out = (await terminal("show", run.run_id, "--steps")).out
    assert "there is no moon" in out
    assert "the arguments of stock cannot be used" in out
    assert "there is no tool 'fly'" in out
    followed = (await terminal("show", run.run_id, "--follow")).err
    for text in (out, followed, stock.error or ""):
        assert "Call it again" not in text
        assert "error: " not in text
    assert stock.read_as is not None
    assert "Call it again with different arguments." in stock.read_as, "the model is still told"


async def test_a_rejected_call_is_rejected(terminal: Terminal) -> None:
    """Its state is `rejected`, with the reason, everywhere."""
    run = await _waits(terminal, "refund")
    await run.reject(reason="only 20 were paid", actor="ann")
    await run.result(timeout=PATIENCE)
    [call] = [step for step in await run.trace() if step.kind == "tool"]
    assert (call.state, call.error, call.result) == ("rejected", "only 20 were paid", None)
    row = next(line for line in (await terminal("show", run.run_id)).out.splitlines() if "refund(" in line)
    assert "rejected" in row
    assert "error" not in row


async def test_an_edited_call_keeps_what_the_model_asked(terminal: Terminal) -> None:
    """Both arguments are shown, in one order; the result has no words for the model in it."""
    run = await _waits(terminal, "refund")
    await run.approve(args={"amount": 20.0, "order_id": "17"}, actor="ann")
    await run.result(timeout=PATIENCE)
    out = (await terminal("show", run.run_id)).out
    assert 'asked for  refund(order_id="17", amount=40)' in out
    assert 'allowed    refund(order_id="17", amount=20.0)' in out
    [call] = [step for step in await run.trace() if step.kind == "tool"]
    assert (call.args, call.edited_args) == ({"order_id": "17", "amount": 40}, {"order_id": "17", "amount": 20.0})
    assert call.result == "refunded 20.0 for 17"
    [approval] = await run.approvals()
    assert (approval.asked_args, approval.args) == (call.args, call.edited_args)
    one = (await terminal("show", run.run_id, str(call.step_no))).out
    assert "arguments, as changed by a person" in one
    assert "arguments, as chosen by the model" in one


async def test_an_approval_is_found_from_the_run_that_asked(terminal: Terminal) -> None:
    """A parent's page, its `approve` and the client name the run below, at any depth, and the command to use."""
    run = await _waits(terminal, "refund", agent="boss")
    [call] = await run.waiting()
    assert (call.agent, call.tool, call.args) == ("clerk", "refund", {"order_id": "17", "amount": 40})
    command = f"holdfast approve {call.run_id[:8]} {call.step_no}"
    out = (await terminal("show", run.run_id)).out
    assert command in out
    assert 'refund(order_id="17", amount=40)' in out
    assert "asking" in next(line for line in out.splitlines() if "desk(" in line)
    refused = await terminal("approve", run.run_id)
    assert (refused.code, command in refused.err) == (2, True), refused.err
    with pytest.raises(DecisionRefused, match=call.run_id[:8]):
        await run.reject(reason="no")
    done = await terminal(*command.split()[1:])
    assert done.code == 0, done.err
    assert "refunded 40.0" in (await run.result(timeout=PATIENCE)).output


async def test_a_doubt_is_found_from_the_run_that_asked(terminal: Terminal) -> None:
    """A call in doubt below is named with its command."""
    run = await _waits(terminal, "a letter", agent="desk")
    [call] = await run.waiting()
    assert call.kind == "in_doubt"
    refused = await terminal("resolve", run.run_id, str(call.step_no), "--abandon")
    assert f"holdfast resolve {call.run_id[:8]} {call.step_no}" in refused.err, refused.err
    assert f"holdfast resolve {call.run_id[:8]} {call.step_no} --abandon" in (await terminal("show", run.run_id)).out
    await until(lambda: _resolved(terminal, call.run_id, call.step_no), "it is resolved")
    await run.result(timeout=PATIENCE)


async def _resolved(terminal: Terminal, run_id: str, step: int) -> bool:
    return (await terminal("resolve", run_id, str(step), "--abandon")).code == 0


async def test_no_wait_leaves_a_run_that_waits_for_a_person(terminal: Terminal) -> None:
    """Exit code 3, one line on standard error that says what waits; with --json a last line for the script."""
    plain = await terminal("run", "keeper", "refund", "--no-wait")
    assert plain.code == 3
    assert plain.out == ""
    assert plain.err.count("waits for a person") == 1
    as_json = await terminal("run", "keeper", "refund", "--no-wait", "--json")
    last = json.loads(as_json.out.splitlines()[-1])
    assert (as_json.code, last["kind"], last["waiting"][0]["tool"]) == (3, "waiting", "refund")
    [line] = as_json.err.splitlines()
    assert "waits for a person" in line
    run = await terminal.client.get(last["run_id"])
    assert (await terminal("show", run.run_id, "--follow", "--no-wait")).code == 3
    approve = last["waiting"][0]["commands"][0]
    assert (await terminal(*approve.split()[1:])).code == 0
    ended = await terminal("show", run.run_id, "--follow", "--no-wait")
    assert (ended.code, ended.out) == (0, "refunded 40.0 for 17\n"), "an approval that was decided holds nobody up"
    below = await terminal("run", "desk", "refund", "--no-wait")
    assert (below.code, "(clerk)" in below.err) == (3, True)


async def test_a_script_that_waits_is_told(terminal: Terminal) -> None:
    """Without a terminal, `run --json` says in one line on standard error that the run waits, and waits with it."""
    process = await asyncio.create_subprocess_exec(
        *terminal.command,
        *("run", "keeper", "refund", "--json"),
        cwd=terminal.world.folder,
        env=terminal.environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    line = (await asyncio.wait_for(process.stderr.readline(), PATIENCE)).decode()
    assert "waits for a person" in line
    first = json.loads(await process.stdout.readline())
    assert (await terminal("approve", first["run_id"])).code == 0
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert (process.returncode, err) == (0, b"")
    assert json.loads(out.splitlines()[-1])["output"] == "refunded 40.0 for 17"


@pytest.mark.parametrize("width", [40, 80])
async def test_a_narrow_terminal_breaks_no_address(terminal: Terminal, width: int) -> None:
    """At 40 and 80 columns tables fit, and the Web UI's address and each command stay in one piece."""
    run = await _waits(terminal, "refund")
    terminal.extra = {"COLUMNS": str(width)}
    out = (await terminal("show", run.run_id)).out
    assert f"{run.ui_url()}\n" in out
    assert f"{run.run_id}  waiting\n" in out
    step = (await run.waiting())[0].step_no
    assert f"  holdfast reject {run.run_id[:8]} {step} --reason '…'\n" in out
    head = next(number for number, line in enumerate(out.splitlines()) if line.startswith("step  what"))
    assert all(len(line) <= width for line in out.splitlines()[head : head + 3])
    code, seen = await on_a_terminal(terminal, ["show", run.run_id, "--steps"], [])
    assert (code, "refund(" in seen) == (0, True)
    await run.reject(reason="no")


async def test_the_list_of_runs_counts_what_waits(terminal: Terminal) -> None:
    """The run that waits is marked, and JSON has the counts."""
    run = await _waits(terminal, "refund")
    listed: list[dict[str, Any]] = [json.loads(line) for line in (await terminal("runs", "--json")).out.splitlines()]
    assert [each["approvals"] for each in listed if each["run_id"] == run.run_id] == [1]
    await run.reject(reason="no")

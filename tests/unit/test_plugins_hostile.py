"""Hooks that return, raise and say what nobody expected: a plugin's fault stays its own, whatever it is."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from holdfast import Plugin
from holdfast.activities.hooks import _difference
from holdfast.errors import ConfigurationError, PluginFailed, Refused, SecretUnavailable, ToolNotStarted
from holdfast.plugins.contract import AskedCall, At, ModelCall, Reply, ToolCall, ToolResult
from holdfast.plugins.host import Host, Note
from holdfast.plugins.load import find_plugins
from holdfast.settings import Settings
from holdfast.tools.runner import NeverBegan, ToolRunner
from tests.kit import PATIENCE

AT = At(tenant="t", thread="c", run_id="r", agent="a")
REPLY = Reply(text=None, calls=[AskedCall(id="1", name="pay", arguments='{"amount": 5}')])
CALL = ModelCall(model="m", messages=[{"role": "user", "content": "hello"}], tools=["pay"])


class Odd(Plugin):
    """Does in each hook what it was made with."""

    name = "odd"
    required = False

    def __init__(self, does: Callable[[Any], Any]) -> None:
        self.does = does

    def message(self, at: At, text: str) -> Any:
        """Do it."""
        return self.does(text)

    async def before_model(self, at: At, call: ModelCall) -> Any:
        """Do it."""
        return self.does(call)

    async def after_model(self, at: At, reply: Reply) -> Any:
        """Do it."""
        return self.does(reply)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda reply: replace(reply, calls=[replace(reply.calls[0], arguments={"amount": 1})]),
        lambda reply: replace(reply, calls=[replace(reply.calls[0], arguments=None)]),
        lambda reply: replace(reply, calls=[{"id": "1", "name": "pay", "arguments": "{}"}]),
        lambda reply: replace(reply, calls=None),
    ],
)
async def test_wrong_calls_are_the_plugins_failure(wrong: Callable[[Any], Any]) -> None:
    """Found past the hook, they would end the step, and its next try would buy the reply again, without end."""
    async with ToolRunner() as runner:
        notes: list[Note] = []
        assert await Host([Odd(wrong)], Settings(), runner).after_model(AT, REPLY, notes) is REPLY
        assert [(note.hook, note.did) for note in notes] == [("after_model", "failed")]


@pytest.mark.parametrize("content", [b"bytes", {1, 2}, float("nan"), Ellipsis])
async def test_messages_that_are_no_json_are_the_plugins_failure(content: Any) -> None:
    """Found past the hook, they would have the step tried for ever."""
    async with ToolRunner() as runner:
        notes: list[Note] = []
        host = Host([Odd(lambda call: replace(call, messages=[{"role": "user", "content": content}]))], None, runner)
        assert await host.before_model(AT, CALL, notes) is CALL
        assert [(note.hook, note.did) for note in notes] == [("before_model", "failed")]


async def test_a_refusal_within_a_task_group_is_one() -> None:
    """A guardrail that asks several at once refuses by an exception group; that is no failure to let pass."""

    def refuse(_: Any) -> None:
        raise ExceptionGroup("checks", [ValueError("a"), ExceptionGroup("more", [Refused("not this")])])

    async with ToolRunner() as runner:
        with pytest.raises(Refused, match="odd refused this message: not this"):
            await Host([Odd(refuse)], Settings(), runner).message(AT, "hello", [])


async def test_what_a_plugin_says_can_be_stored() -> None:
    """Its words go into the run's row, an event and a history: no NUL, no half of a character, no megabytes."""

    def refuse(_: Any) -> None:
        raise Refused("no\x00t \ud800this" + "!" * 1_000_000)

    async with ToolRunner() as runner:
        notes: list[Note] = []
        with pytest.raises(Refused) as caught:
            await Host([Odd(refuse)], Settings(), runner).message(AT, "hello", notes)
        for said in (str(caught.value), notes[0].why or ""):
            assert "not \N{REPLACEMENT CHARACTER}this!" in said
            assert len(said) < 1200


def talk(rounds: int) -> list[dict[str, Any]]:
    """Return a long conversation that repeats itself, as one with a schedule does."""
    two = [{"role": "user", "content": "check"}, {"role": "assistant", "content": "ok"}]
    return [{"role": "system", "content": "s"}, *(two * rounds)]


def undone(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Return what is rebuilt from the difference, and of how many pieces."""
    change, parts = _difference(before, after)
    made: list[dict[str, Any]] = []
    for op in change["messages"]:
        made += before[op[0] : op[1]] if isinstance(op, list) else [json.loads(parts[op])]
    return made, len(change["messages"])


@pytest.mark.parametrize("seed", range(20))
def test_any_change_of_a_request_is_rebuilt(seed: int) -> None:
    """Put in, left out, changed, in another order: what was sent comes back."""
    chance = random.Random(seed)
    before = talk(150)
    after = [
        {"role": "user", "content": str(chance.randrange(3))} if chance.random() < 0.1 else each for each in before
    ]
    after = [each for each in after if chance.random() > 0.1]
    if seed % 4 == 0:
        chance.shuffle(after)
    assert undone(before, after)[0] == after


def test_the_difference_of_a_long_talk_is_found_at_once_and_is_small() -> None:
    """Two thousand messages that repeat themselves took difflib 18 seconds; a worker's beat has two."""
    before = talk(1000)
    hint = [before[0], {"role": "system", "content": "today"}, *before[1:]]
    masked = [{"role": "user", "content": f"{n}"} if n % 10 == 0 else each for n, each in enumerate(before)]
    began = time.process_time()
    assert undone(before, hint) == (hint, 3)
    assert undone(before, masked) == (masked, 2 * len(before[::10]) - 1)
    varied = [{"role": "user", "content": str(number)} for number in range(2000)]
    last = [varied[0], *varied[-20:]]
    assert undone(varied, last) == (last, 2), "one that sends the last twenty alone"
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("raised", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError(), StopIteration()])
async def test_what_would_end_a_process_ends_none(raised: BaseException) -> None:
    """It is a failure like any other."""

    def end(_: Any) -> None:
        raise raised

    async with ToolRunner() as runner:
        notes: list[Note] = []
        host = Host([Odd(end)], Settings(), runner)
        assert await host.message(AT, "hello", notes) == "hello"
        assert await host.before_model(AT, CALL, notes) is CALL
        assert [note.did for note in notes] == ["failed", "failed"]


@pytest.mark.parametrize("timeout", [float("inf"), float("nan"), 0, -1.0, True, "5"])
def test_a_time_that_no_step_can_wait_for_is_refused(timeout: Any) -> None:
    """An endless one would go into the limits of each run, whose workflow tasks fail for ever by it."""
    plugin = Odd(lambda _: None)
    plugin.timeout = timeout
    with pytest.raises(ConfigurationError, match="timeout is"):
        find_plugins(Settings(), [plugin])


async def test_a_store_that_cannot_start_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its values are not taken from elsewhere meanwhile, and it needs no new worker once it is back."""
    monkeypatch.setenv("KEY_IN_BOTH", "from the environment")

    class Vault(Plugin):
        name = "vault"
        required = False
        away = True
        told: list[str]

        async def start(self) -> None:
            if self.away:
                raise OSError("no network")
            self.told = ["started"]

        async def secret(self, name: str) -> str | None:
            return "from the vault"

        def message(self, at: At, text: str) -> str | None:
            return "changed"

        async def stop(self) -> None:
            self.told.append("stopped")

    vault = Vault()
    async with ToolRunner() as runner:
        host = Host([vault], Settings(), runner)
        await host.start()
        for _ in range(2):
            with pytest.raises(SecretUnavailable, match="vault did not answer for KEY_IN_BOTH: OSError: no network"):
                await host.secrets.value("KEY_IN_BOTH")
        vault.away = False
        assert await host.secrets.value("KEY_IN_BOTH") == "from the vault"
        assert await host.message(AT, "hello", []) == "hello", "its other hooks are left out"
        await host.stop()
        assert vault.told == ["started", "stopped"]


async def test_a_hook_that_takes_too_long_is_tried_three_times() -> None:
    """Each try of a required plugin has a time-out of its own, and a step's time has room for all of them."""

    class Slow(Plugin):
        """Hangs until it has been called three times."""

        name = "slow"
        timeout = 0.2
        required: bool | None = True

        def __init__(self) -> None:
            self.tries = 0

        async def message(self, at: At, text: str) -> str | None:
            return await self._hang()

        async def answer(self, at: At, text: str) -> str | None:
            return await self._hang()

        async def _hang(self) -> str | None:
            self.tries += 1
            if self.tries % 3:
                await asyncio.Event().wait()
            return "seen at last"

    slow, again = Slow(), Slow()
    again.required = False
    async with ToolRunner() as runner:
        host = Host([slow], Settings(), runner)
        assert await host.message(AT, "hello", []) == "seen at last"
        assert await host.answer(AT, "hello", []) == "seen at last"
        assert slow.tries == 6
        assert host.seconds >= 3 * Settings().scaled(0.2)
        notes: list[Note] = []
        assert await Host([again], Settings(), runner).answer(AT, "hello", notes) == "hello"
        assert (again.tries, [note.did for note in notes]) == (1, ["failed"])


async def test_all_tries_of_all_plugins_of_a_message_end_within_its_step() -> None:
    """Admission is one transaction of 60 seconds: what hooks may take of it is shared out among all their tries."""

    class Eager(Plugin):
        timeout = 1000.0

        async def message(self, at: At, text: str) -> str | None:
            return None

    async with ToolRunner() as runner:
        host = Host([Eager(), Eager()], Settings(), runner)
        whole = sum(host.longest("message", plugin) for plugin in host.of("message"))
        assert 39 < whole <= 40


async def test_a_guard_that_is_not_begun_has_not_failed(caplog: pytest.LogCaptureFixture) -> None:
    """What has yet to be done begins anew, on any worker; what was done waits here until the guard has seen it."""
    asked: list[str] = []

    class Guard(Plugin):
        timeout = 0.1

        async def before_tool(self, at: At, call: ToolCall) -> None:
            asked.append("before")

        async def after_tool(self, at: At, result: ToolResult) -> str | None:
            asked.append("after")
            return "seen"

    blocked, free = threading.Event(), threading.Event()

    async def block() -> None:
        blocked.set()
        free.wait()

    caplog.set_level(logging.CRITICAL)
    async with ToolRunner() as runner:
        host, notes = Host([Guard()], Settings(), runner), list[Note]()
        blocking = asyncio.create_task(runner.call(block))
        try:
            await asyncio.to_thread(blocked.wait)
            call = ToolCall(tool="pay", args={}, effect="once", idempotency_key="k")
            with pytest.raises(ToolNotStarted, match="which must see this call, was not started"):
                await host.before_tool(AT, call, notes)
            result = ToolResult(tool="pay", args={}, text="paid")
            after = asyncio.create_task(host.after_tool(AT, result, notes))
            done, _ = await asyncio.wait([after], timeout=2.0)  # many times what a failing one is given
            assert not done
            assert asked == []
        finally:
            free.set()
        assert await after == "seen"
        await blocking
        assert (asked, [note.did for note in notes]) == (["after"], ["changed"])


class Wedged(Plugin):
    """Blocks its own loop until it is told to go on, and must see all results."""

    def __init__(self) -> None:
        self.blocks, self.go_on = threading.Event(), threading.Event()

    async def after_tool(self, at: At, result: ToolResult) -> None:
        """Block the loop."""
        self.blocks.set()
        self.go_on.wait()

    async def stop(self) -> None:
        """Do nothing."""


async def test_a_guard_that_blocks_its_loop_for_ever_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    """A result waits for it for `hook_wait`; without an end, the run would wait for ever, its leases renewed."""
    caplog.set_level(logging.CRITICAL)
    guard, notes = Wedged(), list[Note]()
    async with ToolRunner() as runner:
        host = Host([guard], Settings(hook_timeout=0.2, hook_wait=0.6), runner)
        try:
            assert host.seconds >= Settings().scaled(3 * 0.2 + 0.6)
            result = ToolResult(tool="pay", args={}, text="paid")
            with pytest.raises(PluginFailed, match=r"must see this result, failed: it could not be called for \d+ s"):
                await asyncio.wait_for(host.after_tool(AT, result, notes), PATIENCE)
        finally:
            guard.go_on.set()
    assert [(note.did, "HOLDFAST_HOOK_WAIT" in (note.why or "")) for note in notes] == [("failed", True)]


async def test_a_blocked_plugin_does_not_keep_its_worker_from_closing(caplog: pytest.LogCaptureFixture) -> None:
    """Its `stop` is not waited for as long as a hook; and when the worker's time is up, not at all."""
    caplog.set_level(logging.CRITICAL)
    guard = Wedged()
    async with ToolRunner() as runner:
        host = Host([guard], Settings(hook_timeout=1000.0), runner)
        result = ToolResult(tool="pay", args={}, text="paid")
        asked = asyncio.create_task(host.after_tool(AT, result, []))
        try:
            await asyncio.to_thread(guard.blocks.wait)
            await asyncio.wait_for(host.stop(), PATIENCE)
            host.end_by(time.monotonic() + 0.1)
            with pytest.raises(NeverBegan):
                await asyncio.wait_for(runner.guest("stop", guard.stop, timeout=1000.0, patience=1000.0), PATIENCE)
        finally:
            guard.go_on.set()
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)

"""The ledger's protocol on real PostgreSQL, step by step, with several owners: design section 4, state by state."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest

from holdfast.contracts import EffectClass, Resolution
from holdfast.memory import ledger
from holdfast.memory.database import Pool
from holdfast.memory.ledger import Step
from holdfast.memory.resolve import resolve_step
from tests.kit import until

LEASE = 30.0
GUARDED: list[EffectClass] = ["once", "verifiable", "keyed", "local_tx"]


def step(effect: EffectClass = "once", *, settle: float = 0.0, args: str = "a") -> Step:
    """Return a step of its own."""
    return Step(uuid.uuid4().hex, str(uuid.uuid4()), "scope", 1, "tool", effect, args, settle)


def other_args(given: Step) -> Step:
    """Return the same step with other arguments."""
    return Step(given.key, given.run_id, given.scope, given.step_no, given.tool, given.effect, "b")


async def expire(pool: Pool, given: Step) -> None:
    """Let the lease run out now."""
    await pool.execute(
        "update effects set lease_until = clock_timestamp(), deadline = least(deadline, clock_timestamp()) "
        "where key = $1",
        given.key,
    )


async def state(pool: Pool, given: Step) -> Any:
    """Return the row's state."""
    return await pool.fetchval("select state from effects where key = $1", given.key)


@pytest.mark.parametrize("effect", GUARDED)
async def test_the_first_owner_goes_and_the_result_is_returned_ever_after(pool: Pool, effect: EffectClass) -> None:
    """Claim, guard, complete; every later claim gets the stored result and sends nothing."""
    given = step(effect)
    async with pool.acquire() as conn:
        claim = await ledger.claim(conn, given, "one", LEASE)
        assert (claim.kind, claim.fence) == ("go", 1)
        assert await ledger.guard(conn, given.key, 1, 5.0)
        assert await ledger.complete(conn, given.key, 1, given.args_hash, {"status": "done"}) == "in_flight"
        again = await ledger.claim(conn, given, "two", LEASE)
        assert (again.kind, again.result) == ("done", {"status": "done"})


@pytest.mark.parametrize("effect", ["once", "verifiable"])
async def test_another_owner_waits_out_the_lease(pool: Pool, effect: EffectClass) -> None:
    """While the lease holds, a second owner may do nothing; unsent and expired, it takes over."""
    given = step(effect, settle=1.0)
    async with pool.acquire() as conn:
        await ledger.claim(conn, given, "one", LEASE)
        second = await ledger.claim(conn, given, "two", LEASE)
        assert second.kind == "wait"
        assert 0 < second.seconds <= LEASE
        await expire(pool, given)
        third = await ledger.claim(conn, given, "two", LEASE)
        assert (third.kind, third.fence) == ("go", 2)
        assert not await ledger.guard(conn, given.key, 1, 5.0), "the first owner is fenced out"
        assert not await ledger.renew(conn, [(given.key, 1)], LEASE)
        assert await ledger.complete(conn, given.key, 1, given.args_hash, {}) is None


async def test_once_sent_and_lost_is_in_doubt_until_proof_or_a_person(pool: Pool) -> None:
    """A sent `once` call whose lease ran out is in doubt; its own late completion is proof."""
    given = step("once")
    async with pool.acquire() as conn:
        await ledger.claim(conn, given, "one", LEASE)
        await ledger.guard(conn, given.key, 1, 5.0)
        await expire(pool, given)
        second = await ledger.claim(conn, given, "two", LEASE)
        assert (second.kind, second.newly) == ("in_doubt", "its worker was lost after the request was sent")
        assert (await ledger.claim(conn, given, "two", LEASE)).newly is None
        assert await ledger.complete(conn, given.key, 1, given.args_hash, {"status": "done"}) == "in_doubt"
        assert await state(pool, given) == "done"


async def test_verifiable_sent_and_lost_waits_to_settle_and_looks(pool: Pool) -> None:
    """After lease and settle the next owner looks first, also when the one that looked was lost too."""
    given = step("verifiable", settle=0.3)
    async with pool.acquire() as conn:
        await ledger.claim(conn, given, "one", LEASE)
        await ledger.guard(conn, given.key, 1, 5.0)
        await expire(pool, given)
        assert (await ledger.claim(conn, given, "two", LEASE)).kind == "wait"

        async def looks() -> Any:
            found = await ledger.claim(conn, given, "two", 0.1)
            return found if found.kind == "look" else None

        second = await until(looks, "the call has settled")
        assert (second.fence, second.sends) == (2, 1)
        third = await until(looks, "the look-up's owner is lost as well")
        assert third.fence == 3


@pytest.mark.parametrize("effect", ["keyed", "local_tx"])
async def test_what_may_be_repeated_is_taken_over_at_once(pool: Pool, effect: EffectClass) -> None:
    """No waiting for a lease where repeating does no harm; the fence keeps the first owner out."""
    given = step(effect)
    async with pool.acquire() as conn:
        await ledger.claim(conn, given, "one", LEASE)
        second = await ledger.claim(conn, given, "two", LEASE)
        assert (second.kind, second.fence) == ("go", 2)
        assert await ledger.complete(conn, given.key, 1, given.args_hash, {}) is None


async def test_the_guard_holds_only_under_a_living_lease(pool: Pool) -> None:
    """With the lease run out nothing may be sent, even by the owner."""
    given = step("once")
    async with pool.acquire() as conn:
        await ledger.claim(conn, given, "one", LEASE)
        await expire(pool, given)
        assert not await ledger.guard(conn, given.key, 1, 5.0)


@pytest.mark.parametrize("effect", GUARDED)
@pytest.mark.parametrize("ended", [True, False])
async def test_other_arguments_under_a_key_that_took_effect_are_in_doubt(
    pool: Pool, effect: EffectClass, ended: bool
) -> None:
    """Nothing is sent, the first outcome is kept, and a person's word holds for the arguments that came last."""
    given = step(effect)
    other = other_args(given)
    async with pool.acquire() as conn:
        await ledger.claim(conn, given, "one", LEASE)
        await ledger.guard(conn, given.key, 1, 5.0)
        if ended:
            await ledger.complete(conn, given.key, 1, given.args_hash, {"status": "done"})
        claim = await ledger.claim(conn, other, "two", LEASE)
        assert claim.kind == "in_doubt"
        assert "different arguments" in (claim.newly or "")
        again = await ledger.claim(conn, other, "three", LEASE)
        assert (again.kind, again.newly) == ("in_doubt", None)
        assert not await ledger.guard(conn, given.key, 1, 5.0)
        assert await ledger.complete(conn, given.key, 1, given.args_hash, {}) is None, "it is of other arguments"
        kept = await conn.fetch(
            "select outcome->'result'->>'status' as status from late_outcomes where key = $1", given.key
        )
        assert [row["status"] for row in kept] == (["done"] if ended else [])
        assert (await ledger.resolve(conn, given.key, "done", {"status": "done", "preview": "b"})).accepted
        assert (await ledger.claim(conn, other, "four", LEASE)).result == {"status": "done", "preview": "b"}


async def test_other_arguments_go_where_nothing_took_effect(pool: Pool) -> None:
    """What was never sent, or is proved to have failed, stands in nobody's way; its owner can send no more."""
    unsent, failed = step("keyed"), step("once")
    async with pool.acquire() as conn:
        for given in (unsent, failed):
            await ledger.claim(conn, given, "one", LEASE)
        assert await ledger.fail(conn, failed.key, 1, "no", {"status": "error"})
        for given in (unsent, failed):
            claim = await ledger.claim(conn, other_args(given), "two", LEASE)
            assert (claim.kind, claim.fence) == ("go", 2)
            assert not await ledger.guard(conn, given.key, 1, 5.0)


async def test_failed_may_be_tried_again_and_failed_for_good_may_not(pool: Pool) -> None:
    """Proved not sent, the next try goes; a final failure is returned like a result."""
    given = step("once")
    async with pool.acquire() as conn:
        await ledger.claim(conn, given, "one", LEASE)
        assert await ledger.fail(conn, given.key, 1, "refused connection")
        second = await ledger.claim(conn, given, "two", LEASE)
        assert (second.kind, second.fence) == ("go", 2)
        assert await ledger.fail(conn, given.key, 2, "no", {"status": "error"})
        third = await ledger.claim(conn, given, "three", LEASE)
        assert (third.kind, third.result) == ("done", {"status": "error"})


@pytest.mark.parametrize(
    ("outcome", "after", "then"),
    [("done", "done", "done"), ("not_done", "retry_ok", "go"), ("abandon", "abandoned", "abandoned")],
)
async def test_a_persons_word_is_carried_out_once_and_audited(pool: Pool, outcome: Any, after: str, then: str) -> None:
    """In doubt becomes what the person says, in the transaction that writes the audit row; said twice is once."""
    given = step("once")
    async with pool.acquire() as conn:
        await ledger.claim(conn, given, "one", LEASE)
        await ledger.guard(conn, given.key, 1, 5.0)
        word = Resolution(step_no=1, outcome=outcome, decision_id=uuid.uuid4().hex, actor="ann")
        where: dict[str, Any] = {"tenant": "t", "thread": "x", "run_id": given.run_id}
        early, _ = await resolve_step(conn, **where, resolution=word.model_copy(update={"decision_id": "early"}))
        assert not early.accepted, "it is in flight, not in doubt"
        await ledger.doubt(conn, given.key, 1, "lost")
        if outcome == "not_done":
            soon, _ = await resolve_step(conn, **where, resolution=word.model_copy(update={"decision_id": "soon"}))
            assert not soon.accepted, "lease and deadline have not passed"
            assert "again in" in (soon.why or "")
            await expire(pool, given)
        for _ in range(2):
            said, _ = await resolve_step(conn, **where, resolution=word)
            assert said.accepted
        assert await state(pool, given) == after
        assert (await ledger.claim(conn, given, "two", LEASE)).kind == then
        rows = await conn.fetch("select accepted from audit where decision_id = $1", word.decision_id)
        assert [row["accepted"] for row in rows] == [True]


async def test_a_pure_step_is_recorded_by_whoever_is_first(pool: Pool) -> None:
    """The second attempt's insert does nothing, so its transaction rolls back and returns the first one's result."""
    given = step("pure")
    async with pool.acquire() as conn:
        assert await ledger.record_pure(conn, given, "one", {"n": 1})
        assert not await ledger.record_pure(conn, given, "two", {"n": 2})
        assert await ledger.stored(conn, given.key) == ({"n": 1}, given.args_hash)


async def test_a_keyed_call_is_not_sent_again_when_the_remote_may_have_forgotten_its_key(pool: Pool) -> None:
    """Its age counts from the first send, however often it was sent since; after its lifetime a person decides."""
    given = replace(step("keyed"), resend=100.0)
    async with pool.acquire() as conn:
        await ledger.claim(conn, given, "one", LEASE)
        assert await ledger.guard(conn, given.key, 1, 5.0)
        assert (await ledger.claim(conn, given, "two", LEASE)).kind == "go"
        await conn.execute(
            "update effects set first_sent_at = first_sent_at - interval '101 s' where key = $1", given.key
        )
        assert await ledger.guard(conn, given.key, 2, 5.0), "sent again within the lease of who had claimed it in time"
        late = await ledger.claim(conn, given, "three", LEASE)
        assert late.kind == "in_doubt"
        assert "key_lifetime" in (late.newly or "")
        await expire(pool, given)
        assert (await ledger.resolve(conn, given.key, "not_done")).accepted
        assert (await ledger.claim(conn, given, "four", LEASE)).kind == "go", "a person said so"
        assert await conn.fetchval("select first_sent_at is null from effects where key = $1", given.key)


async def test_tries_are_counted_in_the_row(pool: Pool) -> None:
    """Of a `pure` step, which has a row only once it failed; of a rolled back transaction; and of look-ups."""
    given, local, looked = step("pure"), step("local_tx"), step("verifiable", settle=1.0)
    async with pool.acquire() as conn:
        assert [await ledger.fail_pure(conn, given, f"owner-{n}", "no") for n in range(2)] == [1, 2]
        assert await ledger.fail_pure(conn, given, "owner-1", "no") == 2, "an answer was lost, the commit made again"
        assert await ledger.stored(conn, given.key) is None
        assert await ledger.record_pure(conn, given, "three", {"n": 3})
        assert await ledger.fail_pure(conn, given, "four", "late") is None
        assert await ledger.stored(conn, given.key) == ({"n": 3}, given.args_hash)
        await ledger.claim(conn, local, "one", LEASE)
        assert await ledger.fail_try(conn, local.key, 1, "rolled back")
        again = await ledger.claim(conn, local, "two", LEASE)
        assert (again.kind, again.sends) == ("go", 1)
        await ledger.claim(conn, looked, "one", LEASE)
        assert [await ledger.look_failed(conn, looked.key, 1) for _ in range(2)] == [1, 2]
        assert await ledger.look_failed(conn, looked.key, 2) is None


@pytest.mark.parametrize("effect", ["once", "verifiable", "keyed"])
async def test_a_guard_that_sent_nothing_counts_no_try_however_often_that_is_said(
    pool: Pool, effect: EffectClass
) -> None:
    """Whether or not the guard was committed, and whether the answer to this was lost: the count is the claim's."""
    given = step(effect)
    async with pool.acquire() as conn:
        await ledger.claim(conn, given, "one", LEASE)
        assert await ledger.guard(conn, given.key, 1, 5.0)
        assert await ledger.fail(conn, given.key, 1, "refused connection")
        for fence, guarded, said in ((2, True, 1), (3, True, 2), (4, False, 2)):
            claim = await ledger.claim(conn, given, f"owner-{fence}", LEASE)
            assert (claim.fence, claim.sends) == (fence, 1)
            assert not guarded or await ledger.guard(conn, given.key, fence, 5.0)
            for _ in range(said):
                await ledger.unsend(conn, given.key, fence, claim.sends)
            await ledger.unsend(conn, given.key, fence - 1, 0)  # of an owner that was fenced out
            assert await conn.fetchval("select sends from effects where key = $1", given.key) == 1
            assert await ledger.fail(conn, given.key, fence, "not sent")
        await ledger.unsend(conn, given.key, 4, 0)
        assert await conn.fetchval("select sends from effects where key = $1", given.key) == 1, "it has ended"

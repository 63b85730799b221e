"""What must hold of model calls and budgets, (11) (12); `assertions` lists it, the auditor calls it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta

from tests.conformance.books import LEASE, Books, Row

__all__ = ["NO_TIME", "bought_again", "budgets_hold", "recorded_calls_are_not_bought_again", "repeats"]

# Faults so named never come between a model's answer and its record: who is told to go lets his calls finish first.
_HARMLESS = ("SIGTERM", "memory process")
# Seconds after a fault in which its harm may show: a frozen worker wakes, and sends what it was about to send, though
# another has been given the same call.
_AFTER = timedelta(seconds=LEASE)
NO_TIME = "the machine had no time"
_DATABASE = ("PostgreSQL", "pg_ctl", "supervisor")  # words of faults that take it away: no lease is renewed


def repeats(books: Books) -> tuple[int, int]:
    """Return how many answers of the model were bought and not recorded, and how many faults fell into model calls."""
    lost = struck = 0
    for where, bought in _bought(books).items():
        lost += len(bought) - (where in books.spoken)
        struck += len(_struck(books, where, bought))
    return lost, struck


def _bought(books: Books) -> dict[tuple[str, int], list[datetime]]:
    """Return by message and round when the model server was asked, and had it in mind to answer."""
    bought: dict[tuple[str, int], list[datetime]] = defaultdict(list)
    for call in books["model_calls"]:
        if not call["fault"]:
            bought[call["run"], call["round"]].append(call["at"])
    return bought


def _struck(books: Books, where: tuple[str, int], bought: list[datetime]) -> list[Row]:
    """Return the faults and stops that fell between the first request of a model call and its record.

    A fault of certain processes counts if one of them had been given the call, where it was recorded in the end.
    """
    record = _record(books, where)
    run = books.named.get(where[0])
    run = None if run is None else books.runs.get(run["merged_into"] or "", run)
    over = (run or {}).get("ended_at") if record is None else record["at"]
    until = max([*bought, *([] if over is None else [over])])
    buyers = None if record is None else {_pid(row) for row in books["given"] if row["key"] == record["key"]}
    found = [
        fault
        for fault in books["faults"]
        if not any(word in fault["kind"] for word in _HARMLESS)
        and "MCP" not in fault["kind"]
        and (buyers is None or not fault["pids"] or buyers & set(fault["pids"]))
        and (not fault["threads"] or (run is not None and books.threads_above(run["run"]) & set(fault["threads"])))
        and fault["until"] + _AFTER >= bought[0]
        and fault["at"] <= until
        and (fault["until"] >= bought[0] or not fault["threads"] or _left_open(books, run))
    ]
    stop = None if run is None else books.stopped(run["run"])
    return found if stop is None or record is not None else [*found, stop]


def _left_open(books: Books, run: Row | None) -> bool:
    """Whether a workflow of the run was taken away in a model step, which may have been about to buy."""
    return run is not None and any(
        result is None and given["run_id"] == run["run"] for _, given, result in books.scheduled("model_step")
    )


def recorded_calls_are_not_bought_again(books: Books) -> Iterator[str]:
    """No recorded model call is bought again; what was bought and not recorded is at most the faults that hit it."""
    for where, bought in _bought(books).items():
        about = f"round {where[1]} of {where[0]}"
        record = _record(books, where)
        yield from _bought_for_nothing(books, where, bought, about)
        if record is not None:
            yield from _bought_too_late(books, record, _again(books, where, bought), about)
        elif where in books.spoken:
            yield f"{about} has a reply that the ledger did not record"
    for where in books.spoken.keys() - _bought(books).keys():
        yield f"round {where[1]} of {where[0]} has a reply that no model gave"


def _bought_for_nothing(books: Books, where: tuple[str, int], bought: list[datetime], about: str) -> Iterator[str]:
    lost, struck = len(bought) - (where in books.spoken), _struck(books, where, bought)
    hit = [str(fault.get("kind", "a stop")) for fault in struck]
    hit += [NO_TIME] * len(_starved(books, bought[0], bought[-1]))
    if lost > len(hit):
        yield f"{about} was bought {lost} times for nothing, and the faults then were: {', '.join(hit) or 'none'}"
    elif lost:
        books.excuse("model call bought and not recorded", f"{about}, {lost} times", _rarest(hit))


def _bought_too_late(books: Books, record: Row, again: list[datetime], about: str) -> Iterator[str]:
    buyers: set[str] = set()
    for at in again:
        because = _bought_late(books, record, at, buyers)
        if because is None:
            yield f"{about} was bought again at {at} after it had been recorded: {record['at']}"
        else:
            books.excuse("model call bought although another had just recorded it", f"{about} {at}", because)


def _again(books: Books, where: tuple[str, int], bought: list[datetime]) -> list[datetime]:
    """Return when a model call was bought that had been recorded before."""
    record = _record(books, where)
    return [] if record is None else [at for at in bought if at > record["at"]]


def _record(books: Books, where: tuple[str, int]) -> Row | None:
    """Return when the reply was recorded, as its commit has it, and by whom; its rows may be older than the commit."""
    reply = books.spoken.get(where)
    if reply is None:
        return None
    key = books.model_keys.get((reply["run"], reply["step_no"]))
    return next((record for record in books["recorded"] if record["key"] == key), None)


def bought_again(books: Books) -> int:
    """Return how many model calls were bought that had been recorded before, excused or not."""
    return sum(len(_again(books, where, bought)) for where, bought in _bought(books).items())


def _bought_late(books: Books, record: Row, at: datetime, buyers: set[str]) -> str | None:
    """Return why a call was bought at this time, after its record; None if nothing accounts for it.

    Its buyer was given the call before it was recorded, found no record, and was held up; or the one who recorded it
    was held up beyond his lease. Each buyer buys once: he joins *buyers*.
    """
    given = [row for row in books["given"] if row["key"] == record["key"] and row["at"] <= record["at"]]
    first = min((row["at"] for row in given if row["owner"] == record["owner"]), default=record["at"])
    for row in given:
        if row["owner"] == record["owner"] or row["owner"] in buyers:
            continue
        because = _held_up(books, row, row["at"], at) or _held_up(books, record, first, record["at"])
        if because is None and at - record["at"] <= _AFTER and _starved(books, record["at"], at):
            because = NO_TIME
        if because is not None:
            buyers.add(row["owner"])
            return because
    return None


def _held_up(books: Books, row: Row, since: datetime, until: datetime) -> str | None:
    """Return what kept the owner of a model call from going on then, or from renewing his lease."""
    for fault in books["faults"]:
        froze = "SIGSTOP" in fault["kind"] and _pid(row) in fault["pids"]
        away = any(word in fault["kind"] for word in _DATABASE)
        if (froze or away) and fault["at"] <= until and fault["until"] >= since:
            return str(fault["kind"])
    return None


def _starved(books: Books, since: datetime, until: datetime) -> list[Row]:
    """Return the times then in which the machine had no time, each of a few seconds.

    What Temporal does not hear of for two seconds it has tried again; each try may buy once, as if its worker had been
    killed.
    """
    return [row for row in books["starved"] if row["at"] <= until and row["until"] + _AFTER >= since]


def _rarest(hit: list[str]) -> str:
    """Return what to name as the cause: a fault rather than that the machine had no time."""
    return min(hit, key=lambda kind: kind == NO_TIME)


def _pid(row: Row) -> int:
    return int(row["owner"].partition(".")[0])


def budgets_hold(books: Books) -> Iterator[str]:
    """No run goes on when its budget is spent or ends for it sooner, and all that was bought is counted."""
    bought: dict[str, list[tuple[datetime, int]]] = defaultdict(list)
    late: dict[str, list[tuple[datetime, int]]] = defaultdict(list)
    run_of = {row["key"]: row["run"] for row in books["effects"]}
    for row in sorted((row for row in books["effects"] if row["tool"] == "model"), key=lambda row: row["created_at"]):
        reply = json.loads(row["result"])
        if reply.get("status") != "too_long":  # then nothing was sent
            bought[row["run"]].append((row["created_at"], reply.get("tokens", 0)))
    for row in books["late"]:
        if row["tokens"]:
            late[row.get("run") or run_of.get(row["key"], "")].append((row["at"], row["tokens"]))
    for run in books["runs"]:
        budget, name = json.loads(run["budget"] or "null") or {}, books.names[run["run"]]
        calls, others = bought[run["run"]], late[run["run"]]
        total = sum(tokens for _, tokens in [*calls, *others])
        if (run["rounds"], run["tokens"]) != (len(calls), total):
            yield f"{name} counts {run['rounds']} rounds, {run['tokens']} tokens, and bought {len(calls)} and {total}"
        most, limit = budget.get("rounds"), budget.get("tokens")
        if most is not None and len(calls) > most:
            yield f"{name} had {len(calls)} of {most} rounds"
        before = sum(tokens for _, tokens in calls[:-1])
        if limit is not None and calls and before >= limit:
            yield f"{name} went on after {before} of {limit} tokens"
        spent = (most is not None and len(calls) >= most) or any(
            _spent(books, above) for above in books.upward(run["run"])
        )
        if run["state"] == "over_budget" and not spent:
            yield f"{name} is over budget with {len(calls)} of {most} rounds and {total} of {limit} tokens"


def _spent(books: Books, run: str) -> bool:
    """Whether a run has used up its tokens, those of all that it asked included: then nobody below it goes on."""
    row = books.runs[run]
    limit = (json.loads(row["budget"] or "null") or {}).get("tokens")
    return limit is not None and row["tokens"] + row["tokens_below"] >= limit

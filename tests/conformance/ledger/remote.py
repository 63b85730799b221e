"""The modelled outside of the ledger machine: a clock that tests move, and a remote that counts what takes effect.

It shares no code with the ledger. Times are seconds on the machine's own clock; events fall on multiples of 1,000 and
limits between two of them, so that the time a test really takes can never decide a case.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.contracts import EffectClass

__all__ = ["LEASE", "SETTLE", "TIMEOUT", "Effect", "Remote", "Request", "Violation"]

LEASE = 10_500.0
SETTLE = 4_700.0
TIMEOUT = 30_300.0


class Violation(AssertionError):
    """A promise of the ledger was broken."""


@dataclass(slots=True)
class Request:
    """One request on its way. *lands* is None when the network loses it; *excuse* says why it may double a call."""

    owner: str
    args: str
    lands: float | None
    excuse: str | None = None
    refused: bool = False  # declined, by the remote or by the tool's own check: this request has no effect
    receipt: int | None = None

    @property
    def landed(self) -> bool:
        """Whether it arrived and there is an answer to be had."""
        return self.receipt is not None or self.refused


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing that happened for good."""

    receipt: int
    owner: str
    args: str
    excuse: str | None


@dataclass(slots=True)
class Remote:
    """Counts each arrival as an effect; dedupes for `keyed` alone, and offers the look-up for `verifiable`."""

    kind: EffectClass
    now: float = 0.0
    effects: list[Effect] = field(default_factory=list)
    under_way: list[Request] = field(default_factory=list)

    def send(self, request: Request) -> None:
        """Take a request into the network; what lands at once has landed when this returns."""
        self.under_way.append(request)
        self._deliver()

    def pass_time(self, seconds: float) -> None:
        """Move the clock, and let land what is due."""
        self.now += seconds
        self._deliver()

    def look_up(self) -> Effect | None:
        """Return the effect of this call, if it has one."""
        return self.effects[0] if self.effects else None

    @property
    def expected(self) -> bool:
        """Whether something may still land."""
        return any(request.lands is not None for request in self.under_way)

    @property
    def unexcused(self) -> list[Effect]:
        """Effects that no documented exception accounts for."""
        return [effect for effect in self.effects if effect.excuse is None]

    def of(self, receipt: int) -> Effect | None:
        """Return the effect with this receipt."""
        return next((effect for effect in self.effects if effect.receipt == receipt), None)

    def take(self, owner: str, args: str, excuse: str | None = None) -> int:
        """Let something take effect now and return its receipt."""
        if self.kind == "keyed" and self.effects:
            return self.effects[0].receipt
        self.effects.append(Effect(len(self.effects) + 1, owner, args, excuse))
        return self.effects[-1].receipt

    def _deliver(self) -> None:
        due = [request for request in self.under_way if request.lands is not None and request.lands <= self.now]
        for request in sorted(due, key=lambda one: one.lands or 0.0):
            self.under_way.remove(request)
            if not request.refused:
                request.receipt = self.take(request.owner, request.args, request.excuse)

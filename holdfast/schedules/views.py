"""What the client shows of schedules and their occurrences. None changes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

__all__ = ["Occurrence", "ScheduleView"]


class Occurrence(BaseModel):
    """One firing. `state` is that of its run; `accepted` until a worker has stored it, `lost` if none was begun."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    scheduled_at: datetime
    started_at: datetime
    workflow_id: str
    run_id: str | None = None
    thread: str | None = None
    state: str = "accepted"
    tokens: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    ended_at: datetime | None = None
    error: str | None = None


class ScheduleView(BaseModel):
    """A schedule: what it asks, when, what came of it lately, and when it fires next.

    `thread` None: a thread for each occurrence. `recent` has up to ten occurrences, oldest first, `next` up to ten
    times. `fired` counts occurrences, `skipped` those that an earlier one under way kept from starting, `missed` those
    that fell due too long before a server was there, `waiting` those that are put off for now, `dropped` those that
    fell due while a thousand waited: Temporal keeps no more. `remaining` None: no end by count.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    name: str
    agent: str
    text: str
    thread: str | None
    when: str
    time_zone: str
    overlap: str
    catch_up: float
    jitter: float = 0.0
    start: datetime | None = None
    end: datetime | None = None
    remaining: int | None = None
    pause_on_failure: bool = False
    paused: bool = False
    note: str | None = None
    fired: int = 0
    skipped: int = 0
    missed: int = 0
    dropped: int = 0
    waiting: int = 0
    recent: list[Occurrence] = []
    next: list[datetime] = []
    created_at: datetime

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return self.model_dump(mode="json")

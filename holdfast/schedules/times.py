"""When a schedule fires: cron, interval and calendar as people write them, checked, to and from Temporal's form."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.client import ScheduleCalendarSpec, ScheduleIntervalSpec, ScheduleRange, ScheduleSpec

from holdfast.errors import InvalidInput
from holdfast.template import zone

__all__ = ["Calendar", "Duration", "Many", "at", "duration", "shown", "times"]

Duration = timedelta | float | str
"""A timedelta, seconds, or words such as 90s, 15m, 2h, 1d, 1w, 1h30m."""

Calendar = Mapping[str, int | str]
"""A calendar's fields: `{"hour": 9, "day_of_week": "mon-fri"}`; numbers, or like cron's `1-5`, `*/15`, `1,3`."""

Many = Any
"""One of something, or a list of them."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_FIELDS = {  # name: (least, most, names and the number of the first)
    "second": (0, 59, [], 0),
    "minute": (0, 59, [], 0),
    "hour": (0, 23, [], 0),
    "day_of_month": (1, 31, [], 0),
    "month": (1, 12, _MONTHS, 1),
    "year": (2000, 2100, [], 0),
    "day_of_week": (0, 7, _DAYS, 0),
}
_CRON_NAMES = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")


def duration(what: str, value: Duration, *, least: float = 1.0) -> timedelta:
    """Return a length of time.

    Raises:
        InvalidInput: it is none, or shorter than *least* seconds.

    """
    if isinstance(value, str):
        parts = re.findall(r"(\d+(?:\.\d+)?)([smhdw])", value)
        if not parts or "".join(number + unit for number, unit in parts) != value.replace(" ", ""):
            raise InvalidInput(f"{what} {value!r:.60} is no length of time: write it like 90s, 15m, 2h, 1d or 1h30m")
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    elif isinstance(value, timedelta):
        seconds = value.total_seconds()
    else:
        seconds = float(value)
    if not least <= seconds <= 100 * 365 * 86400:
        raise InvalidInput(f"{what} is {seconds:g} s: it must be at least {least:g} s")
    return timedelta(seconds=seconds)


def at(what: str, value: datetime | str | None, time_zone: str) -> datetime | None:
    """Return a moment in UTC; without an offset it is one of the time zone.

    Raises:
        InvalidInput: it is no date and time.

    """
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidInput(f"{what} {value!r:.60} is no time: write it like 2026-01-31T08:00") from None
    return (value if value.tzinfo else value.replace(tzinfo=zone(time_zone))).astimezone(UTC)


def times(cron: Many = (), every: Many = (), calendar: Many = (), *, offset: Duration | None = None) -> ScheduleSpec:
    """Return the times at which one of these fires, as the beginning of a schedule's specification.

    Raises:
        InvalidInput: there are none, or one cannot be read; the message says which.

    """
    shift = None if offset is None else duration("offset", offset, least=0)
    spec = ScheduleSpec(
        cron_expressions=[_cron(line) for line in _many(cron)],
        intervals=[ScheduleIntervalSpec(duration("every", one), shift) for one in _many(every)],
        calendars=[_calendar(one) for one in _many(calendar)],
    )
    if not (spec.cron_expressions or spec.intervals or spec.calendars):
        raise InvalidInput('say when: cron="0 7 * * mon-fri", every="2h" or calendar={"hour": 7}')
    if offset is not None and not spec.intervals:
        raise InvalidInput("offset goes with every: it shifts an interval")
    return spec


def _many(value: Many) -> list[Any]:
    if value is None:
        return []
    single = isinstance(value, str | Mapping | timedelta | int | float)
    return [value] if single else list(value)


def _cron(line: Any) -> str:
    words = line.split() if isinstance(line, str) else []
    named = len(words) == 1 and words[0].lower() in _CRON_NAMES
    if words and words[0].upper().startswith(("TZ=", "CRON_TZ=")):
        raise InvalidInput(f"cron {line!r:.80} names a time zone: give it as time_zone")
    if words and words[0] == "@every":
        raise InvalidInput(f"cron {line!r:.80} is an interval: give it as every")
    if not named and not 5 <= len(words) <= 7:
        raise InvalidInput(
            f"cron {line!r:.80} has {len(words)} fields, 5 are wanted: minute, hour, day of month, month, day of week"
        )
    if "#" in line:
        raise InvalidInput(f"cron {line!r:.80} has a comment: leave it out")
    plain = " ".join(words)
    return f"{plain} #{plain}"  # Temporal turns it into a calendar and keeps the remark: so it can be shown as written


def _calendar(given: Any) -> ScheduleCalendarSpec:
    if not isinstance(given, Mapping) or not given:
        raise InvalidInput(
            f'calendar {given!r:.80} is no calendar: write it like {{"hour": 7, "day_of_week": "mon-fri"}}'
        )
    unknown = [str(name) for name in given if name not in _FIELDS]
    if unknown:
        raise InvalidInput(f"a calendar has no {', '.join(unknown)}: its fields are {', '.join(_FIELDS)}")
    ranges = {name: _ranges(name, str(value)) for name, value in given.items()}
    return ScheduleCalendarSpec(**ranges, comment=" ".join(f"{name}={value}" for name, value in given.items()))


def _ranges(name: str, text: str) -> Sequence[ScheduleRange]:
    least, most, _, _ = _FIELDS[name]
    found: list[ScheduleRange] = []
    for part in text.lower().replace(" ", "").split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        try:
            start = least if span == "*" else _number(name, first)
            end = (most if slash else start) if not dash else _number(name, last)
            end = min(most, 6 if name == "day_of_week" else most) if span == "*" else end
            width = int(step) if slash else 1
            if name == "day_of_week" and dash and end == 0 < start:  # fri-sun: Sunday ends a week, too
                end = 7
        except ValueError:
            raise InvalidInput(f"calendar: {name} {text!r:.60} cannot be read: write 5, 1-5, */2 or 1,3") from None
        if not least <= start <= end <= most or width < 1:
            raise InvalidInput(f"calendar: {name} {text!r:.60} is not within {least} to {most}")
        if name == "day_of_week" and end == 7:  # Sunday again
            found.append(ScheduleRange(0))
            if start == 7:
                continue
            end = 6
        found.append(ScheduleRange(start, end, width))
    return found


def _number(name: str, text: str) -> int:
    _, _, names, first = _FIELDS[name]
    return names.index(text[:3]) + first if text[:3] in names else int(text)


def shown(spec: ScheduleSpec) -> str:
    """Return when a schedule fires, as it was written."""
    said = [calendar.comment or "a calendar" for calendar in spec.calendars]
    for interval in spec.intervals:
        offset = f" + {_words(interval.offset)}" if interval.offset else ""
        said.append(f"every {_words(interval.every)}{offset}")
    said += [line.partition(" #")[0] for line in spec.cron_expressions]
    return "; ".join(said)


def _words(length: timedelta) -> str:
    left = length.total_seconds()
    words = ""
    for unit in ("w", "d", "h", "m"):
        count, left = divmod(left, _UNITS[unit])
        words += f"{count:.0f}{unit}" if count else ""
    return words + (f"{left:g}s" if left or not words else "")

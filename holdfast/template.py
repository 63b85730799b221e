"""The text of a recurring message, with the time it was scheduled for. Clients check it, the worker fills it."""

from __future__ import annotations

import re
import string
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from holdfast.errors import InvalidInput

__all__ = ["check_template", "fill", "zone"]

_DIRECTIVES = "aAbBdHIjmMpSUVWyYzZuG%"  # of strftime: those that every system has
_SPEC = re.compile(rf"(?:[^%]|%[{_DIRECTIVES}])*")
_LONGEST_SPEC = 100
_FIELDS = "{time}, {date} and {schedule}, the first two also with a format such as {date:%d.%m.%Y}"


def zone(name: str) -> ZoneInfo:
    """Return the time zone of an IANA name.

    Raises:
        InvalidInput: there is none of that name.

    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # an OSError for the name of a folder
        raise InvalidInput(
            f"there is no time zone {name!r:.80}: use an IANA name such as Europe/Berlin or UTC"
        ) from None


def check_template(text: str) -> None:
    """Refuse a template that could not be filled.

    Raises:
        InvalidInput: it has an unknown field, a stray brace or a format that is not known; the message says which.

    """
    if not fill(text, schedule="x", at=datetime(2000, 1, 1, tzinfo=UTC), time_zone="UTC").strip():
        raise InvalidInput("the text is empty: ask something")


def fill(text: str, *, schedule: str, at: datetime, time_zone: str) -> str:
    """Return the text with `{time}`, `{date}` and `{schedule}` filled in; `{{` and `}}` stand for braces.

    A formatter of its own: the standard one would follow attributes of what it is given, and take any width.

    Raises:
        InvalidInput: as `check_template`; or there is no such time zone.

    """
    local = at.astimezone(zone(time_zone))
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as exc:
        raise InvalidInput(f"the text is no template: {exc}. Write {{{{ and }}}} for braces.") from None
    out = []
    for literal, field, spec, conversion in parts:
        out.append(literal)
        if field is not None:
            out.append(_field(field, spec or "", conversion, schedule, local))
    return "".join(out)


def _field(field: str, spec: str, conversion: str | None, schedule: str, local: datetime) -> str:
    if field not in ("time", "date", "schedule") or conversion is not None or (field == "schedule" and spec):
        written = field + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
        raise InvalidInput(
            f"the text has {{{written:.80}}}, which is not known: there are {_FIELDS}. Write {{{{ and }}}} for braces."
        )
    if field == "schedule":
        return schedule
    odd = not _SPEC.fullmatch(spec) or "%" not in spec or not spec.isprintable()
    if spec and (odd or len(spec) > _LONGEST_SPEC):
        raise InvalidInput(
            f"the format {spec!r:.80} of {{{field}}} is not known: use strftime's directives, such as %Y-%m-%d %H:%M"
        )
    if spec:
        return local.strftime(spec)
    return local.isoformat(timespec="seconds") if field == "time" else local.date().isoformat()

"""The tool `current_time`."""

from __future__ import annotations

import datetime as dt
import difflib
import zoneinfo
from typing import Annotated

from pydantic import Field

from holdfast.errors import ToolError
from holdfast.tools.tool import tool

__all__ = ["current_time"]


@tool(effect="pure")
def current_time(
    timezone: Annotated[str, Field(description="IANA name such as Europe/Berlin")] = "UTC",
) -> str:
    """Tell the current date and time in a time zone."""
    try:
        zone = zoneinfo.ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):  # unknown; a path; a folder such as `America`
        known = sorted(zoneinfo.available_timezones())
        near = difflib.get_close_matches(timezone, known, n=3, cutoff=0.5)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        hint = hint if known else " This machine has no time zone data: install the package tzdata."
        raise ToolError(
            f"there is no time zone {timezone[:80]!r}: use an IANA name such as Europe/Berlin or UTC.{hint}"
        ) from None
    now = dt.datetime.now(zone)
    return f"{now.isoformat(timespec='seconds')} ({now:%A}, {timezone})"

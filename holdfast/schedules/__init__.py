"""Recurring messages on Temporal Schedules: `client.schedules`. Client and command line use it."""

from __future__ import annotations

from holdfast.schedules.desk import ScheduleDesk
from holdfast.schedules.views import Occurrence, ScheduleView

__all__ = ["Occurrence", "ScheduleDesk", "ScheduleView"]

"""Log lines: for people, for machines, from structlog and from the standard library, with the ids of the work."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from holdfast.log import configure_logging, log_context
from holdfast.settings import load_settings


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Put the root logger and structlog back as they were."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_json_lines_have_the_ids_wherever_they_come_from() -> None:
    """Lines of both kinds of logger carry process, thread, run and step; values of any type are written."""
    out = io.StringIO()
    configure_logging(load_settings(log_format="json"), process="agents-1", stream=out)
    with log_context(thread="customer-42", run="r1", step=3):
        structlog.get_logger("ours").info("claimed", fence=2, at=object())
        logging.getLogger("theirs").warning("slow %s", "tool", extra={"tool": "refund"})
    logging.getLogger("theirs").debug("not shown")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["claimed", "slow tool"]
    for line in lines:
        ids = (line["process"], line["thread"], line["run"], line["step"])
        assert ids == ("agents-1", "customer-42", "r1", 3)
    assert lines[0]["fence"] == 2
    assert (lines[1]["tool"], lines[1]["logger"], lines[1]["level"]) == ("refund", "theirs", "warning")


def test_an_exception_is_part_of_its_line() -> None:
    """JSON stays one line per event, the traceback inside it."""
    out = io.StringIO()
    configure_logging(load_settings(log_format="json"), process="x", stream=out)
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("theirs").exception("failed")
    (line,) = out.getvalue().splitlines()
    assert "ValueError: odd" in json.loads(line)["exception"]


def test_configuring_again_replaces_the_handler() -> None:
    """A second call, as in tests, never doubles the lines."""
    first, second = io.StringIO(), io.StringIO()
    configure_logging(load_settings(), process="x", stream=first)
    configure_logging(load_settings(), process="x", stream=second)
    structlog.get_logger("ours").info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1

"""Sets up logging for a process: structlog, for people or as JSON, with the ids of the work at hand on every line.

Each process calls `configure_logging` once, at its start. Everyone else logs by `logging` or `structlog` as usual.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import structlog
from structlog.contextvars import bound_contextvars
from structlog.typing import EventDict, Processor, WrappedLogger

from holdfast.secrets import know_environment, mask
from holdfast.settings import Settings

__all__ = ["PrintableFormatter", "configure_logging", "log_context"]

log_context = bound_contextvars
"""Context manager that puts ids on every line logged inside it: `with log_context(thread=…, run=…, step=…)`."""

# Their info lines say nothing about our work.
_CHATTY = ("LiteLLM", "asyncio", "httpcore", "httpcore2", "httpx", "httpx2", "mcp", "urllib3")


def _temporal_ids(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace the dictionaries that Temporal's loggers attach by the few fields a reader looks for."""
    for key in ("temporal_activity", "temporal_workflow"):
        details = event.pop(key, None)
        if isinstance(details, dict):
            for field in ("workflow_id", "activity_type", "attempt"):
                if details.get(field) is not None:
                    event.setdefault(field, details[field])
    return event


def _masked(_logger: WrappedLogger, _method: str, line: Any) -> Any:
    """Take the values of secrets out of a line, tracebacks included."""
    return mask(line) if isinstance(line, str) else line


def printable(text: str) -> str:
    """Return *text* with control, direction and other invisible characters escaped: it can forge no line."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isprintable() else printable(value)
    return value if value is None or isinstance(value, int | float) else printable(repr(value))


def _for_a_terminal(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape what models, tools and servers said; a traceback stays of several lines, each of them indented."""
    for key, value in event.items():
        if key in ("exception", "stack") and isinstance(value, str):
            event[key] = "\n".join(f"    {printable(line)}" for line in value.split("\n"))
        else:
            event[key] = _escaped(value)
    return event


class PrintableFormatter(logging.Formatter):
    """Writes each record as printable text on one line; lines of a traceback are indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        first, *rest = mask(super().format(record)).split("\n") if record.exc_info else [mask(super().format(record))]
        return "\n".join([printable(first), *(f"    {printable(line)}" for line in rest)])


def configure_logging(settings: Settings, *, process: str, stream: TextIO | None = None) -> None:
    """Send all log lines of this process, ours and the standard library's, to *stream* (default: standard error).

    *process* names the process on every line. Format and level come from `log_format` and `log_level`.
    """
    out = stream or sys.stderr
    know_environment()

    def named(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("process", process)
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        named,
    ]
    render: list[Processor]
    if settings.log_format == "json":
        render = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    else:
        render = [
            structlog.processors.format_exc_info,
            _for_a_terminal,
            structlog.dev.ConsoleRenderer(colors=out.isatty()),
        ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler: logging.Handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(), _temporal_ids],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render, _masked],
        )
    )
    handler.set_name("holdfast")
    root = logging.getLogger()
    others: list[Any] = [found for found in root.handlers if found.get_name() != "holdfast"]
    root.handlers[:] = [*others, handler]
    root.setLevel(settings.log_level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))

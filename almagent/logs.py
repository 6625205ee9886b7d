"""Where events go: one, one line, no secret; JSON for machines, aligned text for people at a terminal."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from almagent.redaction import Redactor

ESCAPES = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F))
} | {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}
"""What could end the line, move the cursor or turn the direction of the text."""


def configure(
    level: str,
    format: str,  # noqa: A002  the name of the setting: auto, console or json
    redactor: Redactor,
    stream: TextIO | None = None,
) -> None:
    """Send all events, and warnings of libraries, to `stream` (stderr). May be called again."""
    stream = stream or sys.stderr
    console = stream.isatty() if format == "auto" else format == "console"
    before: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[Processor] = [
        structlog.processors.format_exc_info,  # the plain one: it shows no local variables
        redactor,
        *(_console(stream) if console else (structlog.processors.JSONRenderer(),)),
    ]
    structlog.configure(
        processors=[*before, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_names: _Output(stream),
        cache_logger_on_first_use=False,
    )
    _route_libraries(stream, before, render)


def _console(stream: TextIO) -> tuple[Processor, Processor]:
    coloured = stream.isatty() and not os.environ.get("NO_COLOR")
    renderer = structlog.dev.ConsoleRenderer(
        colors=coloured, exception_formatter=structlog.dev.plain_traceback
    )
    return _escape, renderer


def _escape(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    escaped = {key.translate(ESCAPES): _escaped(value) for key, value in event.items()}
    if "exception" in event:  # a traceback keeps its lines, but none of them looks like an event
        lines = str(event["exception"]).splitlines()
        escaped["exception"] = "\n".join(f"    {line.translate(ESCAPES)}" for line in lines)
    return escaped


def _escaped(value: Any) -> Any:
    """Lists and tables need nothing: they are shown by repr, which escapes."""
    return value.translate(ESCAPES) if isinstance(value, str) else value


class _Output:
    """Writes lines. That they cannot be written is no reason to stop serving."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # the journal is away, the disk is full; the stream is closed
            return

    debug = info = warning = error = critical = exception = log = msg


class _LibraryHandler(logging.Handler):
    """What libraries log through the standard library takes the same way out."""

    def __init__(self, write: Callable[[str], None], formatter: logging.Formatter) -> None:
        super().__init__(logging.WARNING)
        self._write = write
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        self._write(self.format(record))


def _route_libraries(stream: TextIO, before: list[Processor], render: list[Processor]) -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *before],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
    )
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, _LibraryHandler):
            root.removeHandler(handler)
    root.addHandler(_LibraryHandler(_Output(stream).msg, formatter))
    root.setLevel(logging.WARNING)

"""Where events go: one, one line, no secret; text for people at a terminal or the journal, else JSON."""

from __future__ import annotations

import logging
import os
import sys
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
    journal = _is_journal(stream, os.environ.get("JOURNAL_STREAM", ""))
    console = stream.isatty() or journal if format == "auto" else format == "console"
    output = _Journal(stream) if journal else _Output(stream)
    before: list[Processor] = [structlog.stdlib.add_log_level]
    if not (console and journal):  # which notes the time itself
        before.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
    render: list[Processor] = [
        structlog.processors.format_exc_info,  # the plain one: it shows no local variables
        redactor,
        *(_console(stream, journal) if console else (structlog.processors.JSONRenderer(),)),
    ]
    structlog.configure(
        processors=[*before, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_names: output,
        cache_logger_on_first_use=False,
    )
    _route_libraries(output, before, render)


def _is_journal(stream: TextIO, named: str) -> bool:
    """`named`: device and inode of the service manager's stream, as systemd.exec(5) tells them."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no file
        return False
    return named == f"{status.st_dev}:{status.st_ino}"


def _console(stream: TextIO, journal: bool) -> tuple[Processor, Processor]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=stream.isatty() and not os.environ.get("NO_COLOR"),
        exception_formatter=structlog.dev.plain_traceback,
        pad_event_to=0 if journal else 30,  # characters
        pad_level=not journal,
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

    def debug(self, line: str) -> None:
        self.msg(line)

    info = warning = error = critical = exception = debug


class _Journal(_Output):
    """Tells the journal how much each line matters: sd-daemon(3)."""

    def debug(self, line: str) -> None:
        self._tell(7, line)

    def info(self, line: str) -> None:
        self._tell(6, line)

    def warning(self, line: str) -> None:
        self._tell(4, line)

    def error(self, line: str) -> None:
        self._tell(3, line)

    critical = exception = error

    def _tell(self, priority: int, line: str) -> None:
        self.msg("\n".join(f"<{priority}>{part}" for part in line.split("\n")))


class _LibraryHandler(logging.Handler):
    """What libraries log through the standard library takes the same way out."""

    def __init__(self, output: _Output, formatter: logging.Formatter) -> None:
        super().__init__(logging.WARNING)
        self._output = output
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        write = self._output.error if record.levelno >= logging.ERROR else self._output.warning
        write(self.format(record))


def _route_libraries(output: _Output, before: list[Processor], render: list[Processor]) -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *before],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
    )
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, _LibraryHandler):
            root.removeHandler(handler)
    root.addHandler(_LibraryHandler(output, formatter))
    root.setLevel(logging.WARNING)

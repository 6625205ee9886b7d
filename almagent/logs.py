"""One event, one line, no secret: JSON for machines, aligned text for people at a terminal."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO
from urllib.parse import quote

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from almagent.core.model import Secret

HIDDEN = "***"
SHORTEST_SECRET = 4  # characters; hiding shorter ones would make the log unreadable
LONGEST_TEXT = 8000  # characters of one value
MOST_ITEMS = 100  # of one list or table
DEEPEST = 5  # levels of lists and tables
MOST_SECRETS = 2000  # remembered; the oldest are forgotten first: tokens change every hour

PATTERNS = (
    # a private key, also one that was cut off
    (
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)",
        HIDDEN,
    ),
    # user:password@, the password perhaps with a raw slash; then a token alone, but for ssh's user name
    (r"://[^\s/@:]+:[^\s@]+@", f"://{HIDDEN}@"),
    (r"(?<!ssh)://[^\s/@]+@", f"://{HIDDEN}@"),
    (r"(authorization[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic)\s+)?)[^\s\"',}]+", rf"\1{HIDDEN}"),
    (r"(\bbearer\s+)[a-z0-9._~+/=-]{8,}", rf"\1{HIDDEN}"),
    (r"(\b(?:access_token|client_secret|private_token|password)=)[^\s&\"']+", rf"\1{HIDDEN}"),
    (
        r"([\"'](?:access_token|client_secret|private_token|password)[\"']\s*:\s*[\"'])[^\"']+",
        rf"\1{HIDDEN}",
    ),
)

ESCAPES = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F))
} | {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}
"""What could end the line, move the cursor or turn the direction of the text."""

OWN_EVENT = re.compile(r"[a-z_]+(\.[a-z_]+)+")


class Redactor:
    """Takes secrets out of text: those it was told, and what looks like one."""

    def __init__(self) -> None:
        self._known: dict[str, None] = {}  # in the order they were learned
        self._known_pattern: re.Pattern[str] | None = None
        self._patterns = [
            (re.compile(pattern, re.DOTALL | re.IGNORECASE), shown) for pattern, shown in PATTERNS
        ]

    def learn(self, *secrets: str | Secret) -> None:
        for secret in secrets:
            for form in _forms(secret.reveal() if isinstance(secret, Secret) else secret):
                self._known.pop(form, None)
                self._known[form] = None
        while len(self._known) > MOST_SECRETS:
            del self._known[next(iter(self._known))]
        longest_first = sorted(self._known, key=len, reverse=True)
        if longest_first:
            self._known_pattern = re.compile("|".join(map(re.escape, longest_first)))

    def scrub(self, text: str) -> str:
        if self._known_pattern:
            text = self._known_pattern.sub(HIDDEN, text)
        for pattern, shown in self._patterns:
            text = pattern.sub(shown, text)
        return text

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """The structlog processor: only plain, bounded, scrubbed values get to the renderer."""
        name = str(event.pop("event", ""))
        first = {key: event.pop(key) for key in ("timestamp", "level") if key in event}
        first["event"] = name if OWN_EVENT.fullmatch(name) else self._plain(name, 0)
        return first | {self.scrub(str(key)): self._plain(value, 0) for key, value in event.items()}

    def _plain(self, value: object, depth: int) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        if depth < DEEPEST and isinstance(value, Mapping):
            items = list(value.items())[:MOST_ITEMS]
            return {self.scrub(str(key)): self._plain(inner, depth + 1) for key, inner in items}
        if depth < DEEPEST and isinstance(value, list | tuple | set | frozenset):
            return [self._plain(inner, depth + 1) for inner in list(value)[:MOST_ITEMS]]
        text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        return _shortened(self.scrub(text))


def _forms(secret: str) -> list[str]:
    """How a secret may appear: as it is, in a URL, in JSON, and each longer line of it by itself."""
    lines = [line for line in secret.splitlines() if len(line) >= 16]
    forms = [secret, secret.strip(), quote(secret, safe=""), json.dumps(secret)[1:-1], *lines]
    return [form for form in forms if len(form) >= SHORTEST_SECRET]


def _shortened(text: str) -> str:
    """Begin and end are kept: of a traceback the end counts."""
    if len(text) <= LONGEST_TEXT:
        return text
    half = LONGEST_TEXT // 2
    return f"{text[:half]}...({len(text) - 2 * half} more characters)...{text[-half:]}"


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

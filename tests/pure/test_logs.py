"""What reaches the log: one line an event, in the order and form a reader expects, and no secret."""

from __future__ import annotations

import io
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from almagent.core.model import Secret
from almagent.logs import configure
from almagent.redaction import LONGEST_TEXT, MOST_SECRETS, Redactor

CANARY = "canary-3f9a1c"
KEY = (
    "-----BEGIN OPENSSH PRIVATE KEY-----\n"
    "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n"
    "QyNTUxOQAAACBQkTpJBkOR8Qf1mI7cwqUQJYw3pRrR\n"
    "-----END OPENSSH PRIVATE KEY-----\n"
)

log = structlog.get_logger(__name__)


def _fail(message: str) -> None:
    raise ValueError(message)


@pytest.fixture
def redactor() -> Redactor:
    return Redactor()


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with io.StringIO() as stream:
        yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


# --- redaction -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("clone https://bob:pw@host/repo failed", "clone https://***@host/repo failed"),
        ("https://bob:p/w@host/repo", "https://***@host/repo"),
        ("a@b https://bob:p:w@host, x://c:d\te@f", "a@b https://***@host, x://c:d\te@f"),
        ("https://ghp_token@host/repo", "https://***@host/repo"),
        ("ssh://git@host:2222/repo", "ssh://git@host:2222/repo"),
        ("git@host:repo", "git@host:repo"),
        ("https://host:8080/a and mail a@b", "https://host:8080/a and mail a@b"),
        ("Authorization: Bearer eyJhbGciOi.x-y_z=", "Authorization: Bearer ***"),
        ("{'authorization': 'Basic dTpw'}", "{'authorization': 'Basic ***'}"),
        ("sent bearer eyJhbGciOi.x-y_z", "sent bearer ***"),
        ("GET /v3?access_token=abc&flag=x", "GET /v3?access_token=***&flag=x"),
        ('{"client_secret": "abc", "a": 1}', '{"client_secret": "***", "a": 1}'),
        (f"key:\n{KEY}end", "key:\n***\nend"),
        (KEY[:60], "***"),
        (repr(KEY), "'***\\n'"),
        ("password: wrong", "password: wrong"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(redactor: Redactor, text: str, shown: str) -> None:
    assert redactor.scrub(text) == shown


@pytest.mark.parametrize(
    "start",
    ["://a:", "://a:@", "://a", "@ ", "-----BEGIN ", "authorization ", "'password'  ", "bearer "],
)
def test_a_long_line_is_looked_through_at_once(redactor: Redactor, start: str) -> None:
    """A container may write it. Looking again from each start would take many minutes."""
    assert redactor.scrub(f"{start * 200_000}\nthen https://bob:pw@host").endswith("://***@host")


def test_known_secrets_are_hidden_in_every_form(redactor: Redactor) -> None:
    redactor.learn("p@ss wörd/1", Secret('two "quoted"\nlines'), Secret(KEY))
    assert redactor.scrub("a p@ss wörd/1 b") == "a *** b"
    assert redactor.scrub("p%40ss%20w%C3%B6rd%2F1") == "***"
    assert redactor.scrub(json.dumps('two "quoted"\nlines')) == '"***"'
    assert redactor.scrub("bad line QyNTUxOQAAACBQkTpJBkOR8Qf1mI7cwqUQJYw3pRrR") == "bad line ***"


def test_the_password_of_a_known_url_is_hidden_by_itself(redactor: Redactor) -> None:
    redactor.learn("postgres://app:pass%2Fword@db.example.com/app", "see https://example.com")
    redactor.learn("mysql://u:raw@word@db", "a://u:first-one@h1,a://u:second-one@h2")
    redactor.learn("https://token-alone@example.com", "https://example.com:443/@scope")
    assert redactor.scrub("tried 'pass/word', then pass%2Fword") == "tried '***', then ***"
    assert redactor.scrub("raw@word first-one second-one token-alone") == "*** *** *** ***"
    assert redactor.scrub("db.example.com 443/tcp") == "db.example.com 443/tcp"


def test_a_large_value_is_learned_at_once(redactor: Redactor) -> None:
    """Regular expressions that look for URLs need minutes for this one."""
    redactor.learn("://:" * 100_000)
    assert redactor.scrub("nothing") == "nothing"


def test_the_longest_known_secret_is_hidden_first(redactor: Redactor) -> None:
    redactor.learn("secret", "secret-and-more")
    assert redactor.scrub("secret-and-more") == "***"


def test_short_values_are_not_taken_for_secrets(redactor: Redactor) -> None:
    redactor.learn("", "80", "abc")
    assert redactor.scrub("80 abc") == "80 abc"


def test_old_secrets_are_forgotten_first(redactor: Redactor) -> None:
    redactor.learn("first-secret", "second-secret")
    redactor.learn("first-secret", *(f"filler-{number}" for number in range(MOST_SECRETS - 1)))
    assert redactor.scrub("first-secret second-secret") == "*** second-secret"


# --- events --------------------------------------------------------------------------------------


def test_secrets_are_hidden_wherever_they_stand(redactor: Redactor, stream: io.StringIO) -> None:
    redactor.learn(CANARY)
    configure("debug", "json", redactor, stream)
    try:
        _fail(CANARY)
    except ValueError as exc:
        message = f"cannot use {CANARY}"
        log.exception(message, error=exc, raw=CANARY.encode())
    log.debug("some.event", nested={CANARY: [CANARY, {"a": (CANARY, Secret(CANARY))}]})
    log.debug("some.event", **{CANARY: 1})
    logging.getLogger("urllib3").warning("retrying %s", CANARY)
    assert CANARY not in stream.getvalue()
    assert stream.getvalue().count("***") == 10


def test_an_event_name_is_never_redacted(redactor: Redactor, stream: io.StringIO) -> None:
    redactor.learn("ready")
    configure("info", "json", redactor, stream)
    log.info("candidate.ready", state="ready")
    assert json.loads(stream.getvalue()) | {"timestamp": ""} == {
        "timestamp": "",
        "level": "info",
        "event": "candidate.ready",
        "state": "***",
    }


def test_a_traceback_shows_no_local_variables(redactor: Redactor, stream: io.StringIO) -> None:
    configure("info", "json", redactor, stream)
    local = CANARY[:]
    try:
        _fail(str(len(local)))
    except ValueError:
        log.exception("loop.failed")
    assert "ValueError: 13" in json.loads(stream.getvalue())["exception"]
    assert CANARY not in stream.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("evil", ["a\nb", "a\r\nb", "\x1b[2J", "a\u2028b", "\x9b1m", "\u202eb"])
def test_one_event_is_one_line(
    redactor: Redactor, stream: io.StringIO, form: str, evil: str
) -> None:
    configure("info", form, redactor, stream)
    name = f"event {evil}"
    log.info(name, **{f"key{evil}": evil}, nested={evil: [evil]})
    (line,) = stream.getvalue().splitlines()
    assert evil not in line
    assert line.isprintable()


def test_a_traceback_on_the_console_cannot_forge_an_event(
    redactor: Redactor, stream: io.StringIO
) -> None:
    configure("info", "console", redactor, stream)
    try:
        _fail("boom\n2026-01-01T00:00:00Z [info] all.well")
    except ValueError:
        log.exception("loop.failed")
    first, *rest = stream.getvalue().splitlines()
    assert "loop.failed" in first
    assert len(rest) > 3
    assert all(line.startswith("    ") for line in rest)


def test_long_values_lose_their_middle(redactor: Redactor, stream: io.StringIO) -> None:
    configure("info", "json", redactor, stream)
    log.info("some.event", text="begin" + "x" * 100_000 + "end", many=list(range(10_000)))
    event = json.loads(stream.getvalue())
    assert re.fullmatch(r"beginx+\.\.\.\(\d+ more characters\)\.\.\.x+end", event["text"])
    assert len(event["text"]) < LONGEST_TEXT + 50
    assert len(event["many"]) == 100


def test_libraries_are_heard_from_warning_on(redactor: Redactor, stream: io.StringIO) -> None:
    configure("debug", "json", redactor, stream)
    configure("debug", "json", redactor, stream)  # a second time, as on SIGHUP
    logging.getLogger("docker.auth").debug("nothing to see")
    logging.getLogger("asyncio").info("nothing to see")
    logging.getLogger("asyncio").error("task %s", "failed")
    event = json.loads(stream.getvalue())
    assert (event["level"], event["logger"], event["event"]) == ("error", "asyncio", "task failed")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", event["timestamp"])


def test_the_level_is_kept(redactor: Redactor, stream: io.StringIO) -> None:
    configure("warning", "json", redactor, stream)
    log.info("some.event")
    log.warning("other.event")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["other.event"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("no_color", "form", "starts"),
    [("", "auto", "\x1b["), ("1", "auto", "2"), ("", "json", "{"), ("1", "json", "{")],
)
def test_a_terminal_gets_colours_unless_they_are_not_wanted(
    monkeypatch: pytest.MonkeyPatch,
    redactor: Redactor,
    stream: io.StringIO,
    no_color: str,
    form: str,
    starts: str,
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    terminal = Terminal()
    configure("info", form, redactor, terminal)
    log.info("some.event")
    assert terminal.getvalue().startswith(starts)


def test_what_is_no_terminal_gets_json(redactor: Redactor, stream: io.StringIO) -> None:
    configure("info", "auto", redactor, stream)
    log.info("some.event")
    assert json.loads(stream.getvalue())["event"] == "some.event"


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device", text)


def test_a_log_that_cannot_be_written_stops_nothing(
    redactor: Redactor, stream: io.StringIO
) -> None:
    configure("info", "json", redactor, Full())
    log.info("some.event")
    stream.close()
    configure("info", "json", redactor, stream)
    log.info("some.event")


def test_the_journal_gets_text_with_a_priority_and_no_time_of_ours(
    redactor: Redactor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "journal").open("w+") as journal:
        status = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        configure("debug", "auto", redactor, journal)
        log.info("router.pointed", ports=[80])
        log.warning("poll.failed", reason="HTTP 500")
        logging.getLogger("a.library").error("broke")
        try:
            _fail("no")
        except ValueError:
            log.exception("agent.failed")
        configure("info", "json", redactor, journal)
        log.error("some.event")
        text = (tmp_path / "journal").read_text().splitlines()
    assert text[:2] == [
        "<6>[info] router.pointed ports=[80]",
        "<4>[warning] poll.failed reason='HTTP 500'",
    ]
    assert re.fullmatch(r"<3>\[error\] broke +.*a\.library.*", text[2])
    assert text[3] == "<3>[error] agent.failed"
    assert len(text) > 6
    assert all(line.startswith("<3>") for line in text[2:])
    assert text[-1].startswith('<3>{"timestamp": ')


def test_another_stream_than_the_named_one_is_not_the_journal(
    redactor: Redactor, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    configure("info", "auto", redactor, stream)
    log.info("some.event")
    assert json.loads(stream.getvalue())["event"] == "some.event"

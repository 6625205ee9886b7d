"""Taking secrets out of what is shown: events, statuses, messages."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, MutableMapping
from functools import cache
from itertools import pairwise
from typing import Any
from urllib.parse import quote, unquote

from almagent.core.model import Secret

Event = MutableMapping[str, Any]

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
    # a token alone, but for ssh's user name
    (r"(?<!ssh)://[^\s/@]+@", f"://{HIDDEN}@"),
    (r"(authorization[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic)\s+)?)[^\s\"',}]+", rf"\1{HIDDEN}"),
    (r"(\bbearer\s+)[a-z0-9._~+/=-]{8,}", rf"\1{HIDDEN}"),
    (r"(\b(?:access_token|client_secret|private_token|password)=)[^\s&\"']+", rf"\1{HIDDEN}"),
    (
        r"([\"'](?:access_token|client_secret|private_token|password)[\"']\s*:\s*[\"'])[^\"']+",
        rf"\1{HIDDEN}",
    ),
)

SHORTEST_PART = 6  # characters of a secret's part; shorter ones are often common words
USER = r"(?s)://[^\s/@:]+:."  # before a password in a URL, with its first character
OWN_EVENT = re.compile(r"[a-z_]+(\.[a-z_]+)+")


class Redactor:
    """Takes secrets out of text: those it was told, and what looks like one."""

    def __init__(self) -> None:
        self._known: dict[str, None] = {}  # in the order they were learned
        self._known_pattern: re.Pattern[str] | None = None

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
        *before, last = text.split("@")
        text = "@".join([*map(_without_password, before), last])
        for pattern, shown in _patterns():
            text = pattern.sub(shown, text)
        return text

    def __call__(self, _logger: object, _method: str, event: Event) -> Event:
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


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """Made when they are first needed: it takes 3 ms, and a command that finds nothing wrong needs none."""
    return [(re.compile(text, re.DOTALL | re.IGNORECASE), shown) for text, shown in PATTERNS]


def _without_password(text: str) -> str:
    """`text` stands before an @: is that the end of user:password, the password perhaps with a raw slash?

    Not by one regular expression: from each user it would look for the @ again, which takes a second for 30 kB
    without any.
    """
    url = "" if text[-1:].isspace() else (text.rsplit(maxsplit=1) or [""])[-1]
    user = re.search(USER, url)
    return f"{text[: user.start() - len(url)]}://{HIDDEN}" if user else text


def _forms(secret: str) -> list[str]:
    """How a secret may appear: as it is, in a URL, in JSON, and each part of it that may appear by itself:
    a longer line, the password of a URL."""
    lines = [line for line in secret.splitlines() if len(line) >= 16]
    whole = [secret, *_in_urls(secret)]
    elsewhere = [form for text in whole for form in (quote(text, safe=""), json.dumps(text)[1:-1])]
    forms = [*whole, secret.strip(), *elsewhere, *lines]
    return [form for form in forms if len(form) >= SHORTEST_SECRET]


def _in_urls(secret: str) -> list[str]:
    """The password of each URL, which may have a raw @, else its token, but not ssh's user name.

    By splitting, in linear time: a value may be as large as a document, and hold anything.
    """
    found = []
    for before, after in pairwise(secret.split("://")):
        url = (after.split(maxsplit=1) or [""])[0]
        user = re.split("[/@:]", url, maxsplit=1)[0]
        mark, rest = url[len(user) : len(user) + 1], url[len(user) + 1 :]
        if mark == ":":
            password = rest.rpartition("@")[0]
            found += [password, password.partition("@")[0]]
        elif mark == "@" and not before.endswith("ssh"):
            found.append(user)
    parts = [form for part in found for form in (part, unquote(part))]
    return [p for p in parts if len(p) >= SHORTEST_PART and not _is_port_and_path(p)]


def _is_port_and_path(text: str) -> bool:
    port, slash, _ = text.partition("/")
    return bool(slash) and port.isdecimal()


def _shortened(text: str) -> str:
    """Begin and end are kept: of a traceback the end counts."""
    if len(text) <= LONGEST_TEXT:
        return text
    half = LONGEST_TEXT // 2
    return f"{text[:half]}...({len(text) - 2 * half} more characters)...{text[-half:]}"

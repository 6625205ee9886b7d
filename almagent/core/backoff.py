"""How long to wait after a failure. The time and the random number are handed in; all units are seconds."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

RETRY_CAP = 300.0  # no pause of our own grows beyond
RETRY_AFTER_MIN, RETRY_AFTER_MAX = 1.0, 600.0  # what a peer may ask of us

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)
_MANY = 60  # doublings; more would only risk a float overflow


def pause(failures: int, base: float, cap: float) -> float:
    """`base` after the first failure in a row, doubling up to `cap`."""
    if failures < 1:
        return 0.0
    return min(cap, base * 2.0 ** min(failures - 1, _MANY))


def full_jitter(
    failures: int, chance: float, *, base: float = 1.0, cap: float = RETRY_CAP
) -> float:
    """A random moment within `pause`, so that hosts that failed together do not come back together.

    `chance` is a random number in [0, 1).
    """
    return chance * pause(failures, base, cap)


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds that a `Retry-After` header asks for, within 1 to 600; None when it says nothing usable.

    RFC 9110 section 10.2.3: a number of seconds or an HTTP date. `now`: seconds since the epoch.
    """
    if value is None:
        return None
    text = value.strip()
    seconds = float(text) if _NUMBER.fullmatch(text) else _until(text, now)
    if seconds is None:
        return None
    return min(max(seconds, RETRY_AFTER_MIN), RETRY_AFTER_MAX)


def _until(date: str, now: float) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
        if moment.tzinfo is None:  # asctime has no zone; HTTP dates are in UTC
            moment = moment.replace(tzinfo=UTC)
        return moment.timestamp() - now
    except (ValueError, OverflowError):
        return None

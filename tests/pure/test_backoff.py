from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from almagent.core.backoff import full_jitter, parse_retry_after, pause

NOW = 1_800_000_000.0


def test_a_pause_doubles_up_to_its_cap():
    pauses = [pause(failures, 10.0, 300.0) for failures in range(8)]
    assert pauses == [0, 10, 20, 40, 80, 160, 300, 300]
    assert pause(10_000, 10.0, 300.0) == 300


@given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True))
def test_jitter_uses_the_whole_window_and_no_more(failures: int, chance: float):
    wait = full_jitter(failures, chance)
    assert 0 <= wait < 300 or failures == wait == 0
    assert wait == chance * pause(failures, 1.0, 300.0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 120 ", 120),
        ("1.5", 1.5),
        ("0", 1),
        ("-7", 1),
        ("601", 600),
        ("9" * 5000, 600),
        (formatdate(NOW + 90, usegmt=True), 90),
        (formatdate(NOW - 90, usegmt=True), 1),
        (formatdate(NOW + 9e6, usegmt=True), 600),
        ("Friday, 15-Jan-27 08:01:30 GMT", 90),
        ("Fri Jan 15 08:01:30 2027", 90),
        ("soon", None),
        ("", None),
        (None, None),
        ("1e9", None),
        ("nan", None),
        ("inf", None),
        ("٣", None),
        ("Fri, 99 Jan 2027 08:00:00 GMT", None),
        ("Fri, 15 Jan 9999999 08:00:00 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None):
    assert parse_retry_after(value, NOW) == seconds


@given(st.text())
def test_no_retry_after_is_beyond_its_bounds_or_raises(value: str):
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 1 <= seconds <= 600

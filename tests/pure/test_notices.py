"""Each notice acts once, whatever the polls between say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from almagent.core.model import AgentStatus, AgentWord
from almagent.core.notices import Change, Departure, Event, NoticeBook, budget, stays
from almagent.ports import Notice

NOW = 1_000_000.0
SPOT = Notice("aws/spot", True, "terminate at 12:00", NOW + 120)
MOVED = Notice("aws/spot", True, "terminate at 12:02", NOW + 240)
SOONER = Notice("aws/autoscaling", True, "terminate", NOW + 60)
UNTIMED = Notice("aws/autoscaling", True, "terminate at a time not told")
REBOOT = Notice("aws/maintenance/1", False, "system-reboot at noon", NOW + 9000)
REBALANCE = Notice("aws/rebalance", False, "rebalance recommended", NOW - 10)


def changes(events: Sequence[Event]) -> list[Change]:
    return [event.change for event in events]


def restarted(book: NoticeBook, now: float = NOW, *, drain: bool = False) -> NoticeBook:
    return NoticeBook.restore(json.loads(json.dumps(book.as_dict())), now, drain_on_rebalance=drain)


def test_a_terminal_notice_is_reported_and_means_leaving() -> None:
    book = NoticeBook()
    (event,) = book.see([SPOT])
    assert event.status == AgentStatus(AgentWord.SPOT_TERMINATE, "terminate at 12:00")
    assert book.departure() == Departure("terminate at 12:00", NOW + 120)


def test_another_notice_is_reported_and_means_staying() -> None:
    book = NoticeBook()
    (event,) = book.see([REBOOT])
    assert event.status == AgentStatus(AgentWord.NOTICE, "system-reboot at noon")
    assert book.departure() is None


def test_the_same_notice_is_reported_once() -> None:
    book = NoticeBook()
    book.see([SPOT, REBOOT])
    assert [book.see([SPOT, REBOOT]) for _ in range(5)] == [[]] * 5


def test_a_notice_twice_in_one_answer_is_one() -> None:
    assert changes(NoticeBook().see([REBOOT, REBOOT])) == [Change.NEW]


def test_a_moved_time_moves_only_the_deadline() -> None:
    book = NoticeBook()
    book.see([SPOT])
    (event,) = book.see([MOVED])
    assert (event.change, event.status) == (Change.MOVED, None)
    assert book.departure() == Departure("terminate at 12:02", NOW + 240)
    assert book.see([MOVED]) == []


def test_a_time_no_longer_told_is_still_the_time() -> None:
    book = NoticeBook()
    book.see([SPOT])
    assert book.see([Notice(SPOT.key, True, "terminate")]) == []
    assert book.departure() == Departure("terminate", NOW + 120)


def test_a_restart_reports_nothing_again_and_goes_on_leaving() -> None:
    book = NoticeBook()
    book.see([SPOT, REBOOT])
    again = restarted(book)
    assert again.departure() == book.departure()
    assert again.see([SPOT, REBOOT]) == []
    assert changes(restarted(book).see([MOVED, REBOOT])) == [Change.MOVED]


def test_one_clear_miss_is_not_a_withdrawal_two_are() -> None:
    book = NoticeBook()
    book.see([SPOT])
    assert book.see([]) == []
    assert book.departure()
    (event,) = book.see([])
    assert (event.change, event.status, event.key) == (Change.WITHDRAWN, None, "aws/spot")
    assert book.departure() is None
    assert book.see([]) == []


def test_a_withdrawn_notice_that_comes_back_unchanged_is_not_reported_again() -> None:
    book = NoticeBook()
    book.see([SPOT])
    for _ in range(3):
        book.see([])
    (event,) = restarted(book).see([SPOT])
    assert (event.change, event.status) == (Change.RETURNED, None)
    (event,) = book.see([SPOT])
    assert event.change is Change.RETURNED
    assert book.departure() == Departure("terminate at 12:00", NOW + 120)


def test_a_withdrawn_notice_that_comes_back_with_another_time_is_a_new_one() -> None:
    book = NoticeBook()
    book.see([SPOT])
    for _ in range(3):
        book.see([])
    (event,) = book.see([MOVED])
    assert event.status == AgentStatus(AgentWord.SPOT_TERMINATE, "terminate at 12:02")


def test_the_earliest_deadline_counts_and_a_told_one_before_an_untold() -> None:
    book = NoticeBook()
    book.see([SPOT, UNTIMED])
    assert book.departure() == Departure("terminate at 12:00", NOW + 120)
    book.see([SPOT, SOONER])
    assert book.departure() == Departure("terminate", NOW + 60)


def test_a_notice_without_a_time_means_leaving_without_a_deadline() -> None:
    book = NoticeBook()
    book.see([UNTIMED])
    assert book.departure() == Departure("terminate at a time not told", None)


def test_a_machine_started_after_its_notice_does_not_leave_until_it_sees_it_again() -> None:
    book = NoticeBook()
    book.see([SPOT])
    later = restarted(book, NOW + 5000)
    assert later.departure() is None
    assert changes(later.see([SPOT])) == [Change.RETURNED]
    assert later.departure()
    stopped_and_started = restarted(book, NOW + 5000)
    assert stopped_and_started.see([]) == []
    assert stopped_and_started.departure() is None


@pytest.mark.parametrize("notice", [REBOOT, REBALANCE], ids=["maintenance", "rebalance"])
@pytest.mark.parametrize("drain", [False, True])
def test_a_notice_whose_time_is_no_end_is_the_same_after_a_restart_though_its_time_moves(
    notice: Notice, drain: bool
) -> None:
    book = NoticeBook(drain_on_rebalance=drain)
    book.see([notice])
    again = restarted(book, NOW + 10_000, drain=drain)
    assert again.departure() is None
    assert changes(again.see([replace(notice, deadline=NOW + 10_001)])) == [Change.MOVED]
    assert changes([*again.see([]), *again.see([])]) == [Change.WITHDRAWN]


# --- rebalance -----------------------------------------------------------------------------------


def test_a_rebalance_is_only_reported_by_default() -> None:
    book = NoticeBook()
    assert changes(book.see([REBALANCE])) == [Change.NEW]
    for _ in range(5):
        assert book.see([REBALANCE]) == []
    assert book.departure() is None


def test_a_rebalance_drains_when_asked_to_after_two_polls() -> None:
    book = NoticeBook(drain_on_rebalance=True)
    (event,) = book.see([REBALANCE])
    assert event.status == AgentStatus(AgentWord.NOTICE, "rebalance recommended")
    assert book.departure() is None
    assert book.see([REBALANCE]) == []
    assert book.departure() == Departure("rebalance recommended", None)


def test_a_flickering_rebalance_does_not_drain() -> None:
    book = NoticeBook(drain_on_rebalance=True)
    for _ in range(4):
        book.see([REBALANCE])
        assert book.departure() is None
        book.see([])


def test_a_settled_rebalance_survives_one_miss_and_ends_with_its_withdrawal() -> None:
    book = NoticeBook(drain_on_rebalance=True)
    book.see([REBALANCE])
    book.see([REBALANCE])
    book.see([])
    assert book.departure()
    book.see([])
    assert book.departure() is None


def test_a_rebalance_goes_on_draining_after_a_restart_once_it_is_seen() -> None:
    book = NoticeBook(drain_on_rebalance=True)
    book.see([REBALANCE])
    book.see([REBALANCE])
    again = restarted(book, drain=True)
    assert all(event.status is None for event in again.see([REBALANCE]))
    assert again.departure()


def test_the_end_of_the_machine_comes_before_a_recommendation() -> None:
    book = NoticeBook(drain_on_rebalance=True)
    book.see([REBALANCE, SPOT])
    book.see([REBALANCE, SPOT])
    assert book.departure() == Departure("terminate at 12:00", NOW + 120)


# --- state ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"notices": None},
        {"notices": "x"},
        {"notices": [None, 3, {}, {"key": "a"}, []]},
        {
            "notices": [
                {"key": 1, "terminal": 1, "what": 1, "deadline": "x", "seen": 1, "missed": 0}
            ]
        },
        {
            "notices": [
                {
                    "key": "a",
                    "terminal": True,
                    "what": "b",
                    "deadline": float("nan"),
                    "seen": 1,
                    "missed": 0,
                }
            ]
        },
    ],
)
def test_damaged_state_is_left_out(state: dict[str, object]) -> None:
    book = NoticeBook.restore(state, NOW)
    assert book.departure() is None
    assert book.as_dict() == {"notices": []}


def test_the_book_does_not_grow_for_ever() -> None:
    book = NoticeBook()
    for number in range(500):
        book.see([Notice(f"aws/maintenance/{number}", False, "reboot", NOW + number)])
    assert len(json.dumps(book.as_dict())) < 10_000


@pytest.mark.parametrize(
    ("deadline", "seconds"),
    [
        (None, None),
        (NOW + 120, 120.0),
        (NOW, 0.0),
        (NOW - 500, 0.0),
        (NOW + 10**9, 3600.0),
    ],
)
def test_a_budget_is_sane(deadline: float | None, seconds: float | None) -> None:
    assert budget(deadline, NOW) == seconds


@pytest.mark.parametrize(
    ("deadline", "now", "quiet", "stay"),
    [
        (NOW + 120, NOW + 130, 60, False),  # its time is hardly past
        (NOW + 120, NOW + 180, 59, False),  # not quiet for long
        (NOW + 120, NOW + 180, 60, True),
        (NOW + 120, NOW + 90, 900, False),  # withdrawn before its time: perhaps only forgotten
        (NOW - 500, NOW, 60, True),
        (None, NOW, 59, False),
        (None, NOW, 60, True),
        (NOW + 10**9, NOW, 60, True),  # no time that could be waited for
    ],
)
def test_an_instance_stays_when_nothing_is_announced_long_after_its_time(
    deadline: float | None, now: float, quiet: float, stay: bool
) -> None:
    assert stays(Departure("terminate", deadline), now, quiet, margin=60) is stay


# --- any sequence of polls -----------------------------------------------------------------------

POLLS = st.lists(
    st.one_of(st.sets(st.sampled_from([SPOT, UNTIMED, REBOOT, REBALANCE])), st.just("restart")),
    max_size=30,
)


@settings(deadline=None)
@given(POLLS)
def test_every_notice_is_reported_once_and_terminal_ones_in_force_mean_leaving(
    polls: list[set[Notice] | str],
) -> None:
    book = NoticeBook()
    reported: list[AgentStatus] = []
    seen: set[Notice] = set()
    for poll in polls:
        if isinstance(poll, str):
            book = restarted(book)
            continue
        seen |= poll
        reported += [event.status for event in book.see(sorted(poll, key=str)) if event.status]
        if any(notice.terminal for notice in poll):
            assert book.departure()
    assert sorted(status.message for status in reported) == sorted(notice.what for notice in seen)

"""Who is late, and what is no reason to be."""

from __future__ import annotations

import math

from almagent.adapters.calls import SILENT
from almagent.health import GRACE, Health


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_loop_is_late_when_it_is_not_heard_by_the_time_it_told():
    clock = Clock()
    health = Health(clock)
    beat = health.register("poll", step=10)
    beat(30)
    clock.now += 30 + 10 + GRACE
    assert health.late() == {}
    clock.now += 1
    assert health.late() == {"poll": 1.0}
    assert health.loops() == {"poll": False}
    beat(30)
    assert health.late() == {}


def test_a_loop_that_never_begins_is_late():
    clock = Clock()
    health = Health(clock)
    health.register("poll", step=5)
    clock.now += 5 + GRACE + 1
    assert list(health.late()) == ["poll"]


def test_a_loop_that_waits_for_news_is_never_late():
    clock = Clock()
    health = Health(clock)
    health.register("watch")(math.inf)
    clock.now += 1e9
    assert health.late() == {}


def test_a_neighbour_that_refuses_or_fails_is_well_and_one_that_hangs_is_not():
    clock = Clock()
    health = Health(clock)
    called = health.watch_calls("docker", patience=60)
    for outcome in ("ok", "refused", "failed"):
        called("list", outcome, 0.1)
        clock.now += 1e6
        assert health.late() == {}
    for _ in range(3):  # later ones do not put it off
        called("list", SILENT, 10)
        clock.now += 20
    clock.now += GRACE
    assert health.late() == {}
    clock.now += 1
    assert list(health.late()) == ["docker"]
    called("list", "failed", 0.1)
    assert health.late() == {}

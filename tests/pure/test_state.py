"""The state file of an earlier release of the agent, and one that is damaged in a part."""

from __future__ import annotations

from typing import Any

import pytest

from almagent.core.memory import Failure, Memory, Starts, Stop, Trial
from almagent.core.model import Release, Secret, Spec
from almagent.state import Place, Role, State
from tests.fakes.store import MemoryStore

ROLE = Role("mo-1", "Web01")
RELEASE = Release(
    "r1", "app:1", "sha256:1", "sha256:2", "c0ffee", "/code", "/var/www", "", (80, 81)
)
RELEASE_ON_DISK = {
    "revision": "r1",
    "image": "app:1",
    "image_id": "sha256:1",
    "image_digest": "sha256:2",
    "commit": "c0ffee",
    "code_path": "/code",
    "code_dir": "/var/www",
    "init_script": "",
    "ports": [80, 81],
}
MEMORY = Memory(
    active="c1",
    incarnation="c1@7",
    release=RELEASE,
    candidate_release=RELEASE,
    previous="c0",
    previous_release=RELEASE,
    switched_at=12.5,
    up_at_switch=3.5,
    trial=Trial("c2", 3.0),
    stops={"c0": Stop(1.0, 2.0)},
    failure=Failure("r0", 2, "late", None),
    starts=Starts(1, 7.0, refused=True),
    hook_done=True,
    swept="c1",
)
ON_DISK: dict[str, Any] = {
    "boot_id": "boot 1",
    "role": ["mo-1", "Web01"],
    "memory": {
        "active": "c1",
        "incarnation": "c1@7",
        "release": RELEASE_ON_DISK,
        "candidate_release": RELEASE_ON_DISK,
        "previous": "c0",
        "previous_release": RELEASE_ON_DISK,
        "switched_at": 12.5,
        "up_at_switch": 3.5,
        "trial": {"container_id": "c2", "since": 3.0},
        "stops": {"c0": {"since": 1.0, "drain_until": 2.0, "term_at": None}},
        "failure": {"revision": "r0", "count": 2, "message": "late", "retry_at": None},
        "starts": {"count": 1, "next_at": 7.0, "refused": True},
        "hook_done": True,
        "swept": "c1",
    },
    "specs": {
        "r1": {
            "image": "app:1",
            "environment": {"A": "b"},
            "source": None,
            "code_dir": None,
            "ports": [80, 81],
            "updated": 3,
        }
    },
    "place": {"cloud": "aws", "instance_id": "i-1"},
}
SPEC = Spec("r1", "app:1", {"A": Secret("b")}, ports=(80, 81), updated=3)


def _restored(content: dict[str, Any]) -> State:
    store = MemoryStore()
    store.save(content)
    return State(store, "boot 1", ROLE)


def test_what_was_kept_is_known_again() -> None:
    state = _restored(ON_DISK)
    assert state.memory == MEMORY
    assert state.specs == {"r1": SPEC}
    assert state.place == Place("aws", "i-1")


def test_it_is_kept_in_the_same_words() -> None:
    store = MemoryStore()
    store.save(ON_DISK)
    state = State(store, "boot 1", ROLE)
    state.memory = MEMORY
    assert state.save()
    assert {name: store.load()[name] for name in ON_DISK} == ON_DISK


@pytest.mark.parametrize("damaged", [None, [], {"release": {}}, {"switched_at": "12.5"}])
def test_memory_that_cannot_be_read_is_dropped_alone(damaged: object) -> None:
    state = _restored({**ON_DISK, "memory": damaged})
    assert state.memory == Memory()
    assert state.specs == {"r1": SPEC}
    assert state.place == Place("aws", "i-1")

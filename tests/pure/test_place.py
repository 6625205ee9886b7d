"""What is known of the cloud after a restart, a reboot, and on a disk that was cloned."""

from __future__ import annotations

import pytest

from almagent.state import Place, Role, State
from tests.fakes.store import MemoryStore

ROLE = Role("mo-1", "Web01")
HERE = Place("aws", "i-1234567890abcdef0")


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    state = State(store, "boot 1", ROLE)
    assert state.place == Place()
    state.place = HERE
    assert state.save()
    return store


def test_a_restart_knows_cloud_and_instance(store: MemoryStore):
    assert State(store, "boot 1", ROLE).place == HERE


def test_another_boot_may_be_that_of_another_instance(store: MemoryStore):
    assert State(store, "boot 2", ROLE).place == Place("aws", "")


@pytest.mark.parametrize("damaged", [None, [], {}, {"cloud": 3, "instance_id": ""}, "aws"])
def test_what_cannot_be_read_is_not_known(store: MemoryStore, damaged: object):
    store.save({**store.load(), "place": damaged})
    assert State(store, "boot 1", ROLE).place == Place()

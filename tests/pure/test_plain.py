"""What is kept on disk comes back as it was, or is refused with the name of the field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field

import pytest

from almagent.core.frozen import frozen
from almagent.core.memory import Failure, Memory, Starts, Stop, Trial
from almagent.core.model import Release
from almagent.core.plain import plain, revived


@frozen
class Leaf:
    name: str
    at: float | None = None


@frozen
class Tree:
    leaf: Leaf
    size: int = 0
    good: bool = True
    ports: tuple[int, ...] = ()
    named: Mapping[str, Leaf] = field(default_factory=dict)


RELEASE = Release(
    "r1", "app:1", "sha256:1", "sha256:2", "c0ffee", "/code", "/var/www", "", (80, 81)
)
MEMORY = Memory(
    active="c1",
    release=RELEASE,
    switched_at=12.5,
    trial=Trial("c2", 3),
    stops={"c0": Stop(1.0, 2.0), "c3": Stop(1.0, 2.0, 3.0)},
    failure=Failure("r0", 2, "late", None),
    starts=Starts(1, 7.0, refused=True),
    hook_done=True,
)


@pytest.mark.parametrize("memory", [Memory(), MEMORY])
def test_it_comes_back_as_it_was(memory: Memory) -> None:
    assert revived(Memory, json.loads(json.dumps(plain(memory)))) == memory


def test_it_is_made_of_what_json_has() -> None:
    made = plain(MEMORY)
    assert json.loads(json.dumps(made)) == made


def test_another_release_had_other_fields() -> None:
    assert revived(Tree, {"leaf": {"name": "a", "colour": "red"}, "height": 3}) == Tree(Leaf("a"))


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ([], "Tree: not an object"),
        ({}, "Tree: leaf: missing"),
        ({"leaf": None}, "Leaf: not an object"),
        ({"leaf": {}}, "Leaf: name: missing"),
        ({"leaf": {"name": 1}}, "Leaf.name: not what it was"),
        ({"leaf": {"name": "a", "at": "1"}}, "Leaf.at: not what it was"),
        ({"leaf": {"name": "a", "at": True}}, "Leaf.at: not what it was"),
        ({"leaf": {"name": "a", "at": float("nan")}}, "Leaf.at: not what it was"),
        ({"leaf": {"name": "a", "at": float("-inf")}}, "Leaf.at: not what it was"),
        ({"leaf": {"name": "a", "at": 10**400}}, "Leaf.at: not what it was"),
        ({"leaf": {"name": "a"}, "size": 1.0}, "Tree.size: not what it was"),
        ({"leaf": {"name": "a"}, "size": True}, "Tree.size: not what it was"),
        ({"leaf": {"name": "a"}, "good": 1}, "Tree.good: not what it was"),
        ({"leaf": {"name": "a"}, "ports": 80}, "Tree.ports: not what it was"),
        ({"leaf": {"name": "a"}, "ports": ["80"]}, "Tree.ports: not what it was"),
        ({"leaf": {"name": "a"}, "named": []}, "Tree.named: not what it was"),
        ({"leaf": {"name": "a"}, "named": {"b": 3}}, "Leaf: not an object"),
    ],
)
def test_what_it_never_was_is_refused_by_name(raw: object, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}$"):
        revived(Tree, raw)

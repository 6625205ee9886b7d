"""A plan in words: each reason, and a difference that names variables but never a value."""

from __future__ import annotations

from dataclasses import replace

import pytest

from almagent.core.actions import Prepare, Retire
from almagent.core.difference import Change, Variables, changes, variables
from almagent.core.explanation import Look, explain
from almagent.core.memory import Failure
from almagent.core.model import Container, GitSource, Secret, Spec, State
from almagent.core.planner import Plan

NEW = Spec("a" * 64, "app:2", environment={"KEPT": Secret("x"), "NEW": Secret("y")}, ports=(80,))
OLD = Spec("b" * 64, "app:1", environment={"KEPT": Secret("x"), "GONE": Secret("z")}, ports=(80,))
ACTIVE = Container(
    "c", "c", OLD.revision, "sha256:1", State.RUNNING, 0.0, ports=(80,), image="app:1"
)
LOOK = Look(
    flag="Web01",
    defined=True,
    leaving="",
    wanted=NEW,
    active=ACTIVE,
    old=OLD,
    right=False,
    failure=None,
    todo=Plan([Prepare(NEW)]),
    now=100.0,
    scrub=str,
)


def test_an_update():
    found = explain(LOOK)
    assert found.pending
    assert found.why == "release aaaaaaaa is to replace release bbbbbbbb"
    assert found.changes == (Change("image", "app:1", "app:2"),)
    assert found.variables == Variables(known=True, added=("NEW",), removed=("GONE",))
    assert [step.text for step in found.steps] == ["pull app:2"]


@pytest.mark.parametrize(
    ("look", "pending", "why"),
    [
        pytest.param(
            replace(LOOK, right=True, active=replace(ACTIVE, revision="a" * 64), todo=Plan()),
            False,
            "release aaaaaaaa is active and is what the document asks for",
            id="nothing to do",
        ),
        pytest.param(
            replace(LOOK, wanted=None, defined=False, todo=Plan()),
            False,
            "nothing is defined for flag Web01: release bbbbbbbb keeps running",
            id="nothing defined",
        ),
        pytest.param(
            replace(LOOK, wanted=None, leaving="spot notice", todo=Plan([Retire(ACTIVE, 130.0)])),
            True,
            "this instance is going away: spot notice",
            id="leaving",
        ),
        pytest.param(
            replace(LOOK, failure=Failure("a", 1, "no image", 110.0), todo=Plan(wake_at=110.0)),
            True,
            "release aaaaaaaa failed and is tried again in 10 s: no image",
            id="backing off",
        ),
        pytest.param(
            replace(LOOK, failure=Failure("a", 1, "it died", None), todo=Plan()),
            False,
            "release aaaaaaaa was switched back and waits for another document: it died",
            id="switched back",
        ),
        pytest.param(
            replace(LOOK, active=None, old=None),
            True,
            "release aaaaaaaa is to be started; nothing serves now",
            id="first release",
        ),
    ],
)
def test_the_reason(look: Look, pending: bool, why: str):
    found = explain(look)
    assert (found.pending, found.why) == (pending, why)


def test_a_changed_value_is_told_by_its_name():
    new = replace(OLD, environment={"KEPT": Secret("other"), "GONE": Secret("z")})
    assert variables(new, OLD) == Variables(known=True, changed=("KEPT",))
    assert variables(new, None) == Variables(known=False)


def test_code_and_numbers():
    source = GitSource("https://example.com/x.git", "main", password=Secret("canary"))
    old = replace(OLD, source=source, updated=1, ports=None)
    new = replace(old, source=replace(source, reference=""), updated=2, code_dir="/srv")
    assert (
        changes(new, ACTIVE, old)
        == (
            Change("image", "app:1", "app:1"),
            Change("gitReference", "main", "HEAD"),
            Change("codeDir", "the image's own", "/srv"),
            Change("updated", "1", "2"),
        )[1:]
    )

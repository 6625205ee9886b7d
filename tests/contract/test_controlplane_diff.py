"""The difference of two templates, where the reference's example leaves a question."""

from __future__ import annotations

from typing import Any

import pytest

from almagent.controlplane.diff import difference

CASES = {
    "equal": ({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}, [], [], []),
    "every leaf of what is new": (
        {"a": 1},
        {"a": 1, "b": {"c": 2, "d": [3, {}]}},
        {"b/c": 2, "b/d/1": 3, "b/d/2": {}},
        [],
        [],
    ),
    "a layer less": (
        {"configurations": [{"flag": "A"}, {"flag": "B"}]},
        {"configurations": [{"flag": "A"}]},
        [],
        {"configurations/2/flag": "B"},
        [],
    ),
    "the second layer keeps its number": (
        {"configurations": [{"x": 1}, {"x": 1}]},
        {"configurations": [{"x": 2}, {"x": 3}]},
        [],
        [],
        {
            "configurations/x": {"oldvalue": 1, "newvalue": 2},
            "configurations/2/x": {"oldvalue": 1, "newvalue": 3},
        },
    ),
    "true is not 1": ({"a": 1}, {"a": True}, [], [], {"a": {"oldvalue": 1, "newvalue": True}}),
    "a value becomes an object": ({"a": 1}, {"a": {"b": 1}}, {"a/b": 1}, {"a": 1}, []),
}


@pytest.mark.parametrize(
    ("source", "target", "new", "removed", "edited"), CASES.values(), ids=CASES.keys()
)
def test_difference(source: Any, target: Any, new: Any, removed: Any, edited: Any) -> None:
    assert difference(source, target) == {"new": new, "removed": removed, "edited": edited}

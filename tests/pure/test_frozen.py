"""`@frozen` against the dataclass that it stands for."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, replace
from typing import Any

import pytest

from almagent.core.frozen import frozen


@frozen
class Nothing:
    """Has no field."""


@frozen
class Other:
    """Nor has this one."""


@frozen
class One:
    key: str


@frozen
class Point:
    x: int
    y: int = 0
    names: dict[str, int] = field(default_factory=dict)
    secret: str = field(default="s", repr=False)
    size: int = field(default=0, compare=False)

    @property
    def total(self) -> int:
        return self.x + self.y


@dataclass(frozen=True, slots=True)
class Model:
    x: int
    y: int = 0
    names: dict[str, int] = field(default_factory=dict)
    secret: str = field(default="s", repr=False)
    size: int = field(default=0, compare=False)


ARGUMENTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1,), {}),
    ((1, 2), {}),
    ((1,), {"y": 2}),
    ((1,), {"names": {"a": 1}}),
    ((1,), {"secret": "t"}),
    ((1,), {"size": 9}),
]


@pytest.mark.parametrize("first", ARGUMENTS)
@pytest.mark.parametrize("second", ARGUMENTS)
def test_it_is_equal_when_the_dataclass_is(first, second):
    (a, b), (c, d) = first, second
    assert (Point(*a, **b) == Point(*c, **d)) == (Model(*a, **b) == Model(*c, **d))


@pytest.mark.parametrize(("args", "kwargs"), ARGUMENTS)
def test_it_shows_itself_as_the_dataclass_does(args, kwargs):
    shown = repr(Model(*args, **kwargs)).replace("Model", "Point")
    assert repr(Point(*args, **kwargs)) == shown


def test_what_the_standard_library_does_with_dataclasses_works():
    point = Point(1, names={"a": 1})
    assert [f.name for f in fields(Point)] == ["x", "y", "names", "secret", "size"]
    assert replace(point, y=5).total == 6
    assert asdict(point) == {"x": 1, "y": 0, "names": {"a": 1}, "secret": "s", "size": 0}
    assert copy.deepcopy(point) == copy.copy(point) == pickle.loads(pickle.dumps(point)) == point
    match point:
        case Point(1, y=y):
            assert y == 0
        case _:
            pytest.fail("the pattern should match")


def test_other_classes_are_never_equal():
    nothing: Any = Nothing()
    one: Any = One("a")
    point: Any = Point(1)
    assert nothing == Nothing()
    assert nothing != Other()
    assert nothing != ()
    assert one != "a"
    assert point != Model(1)


def test_equal_ones_are_one_in_a_set():
    assert {One("a"), One("a"), One("b")} == {One("b"), One("a")}
    assert {Nothing(), Nothing(), Other()} == {Other(), Nothing()}
    with pytest.raises(TypeError, match="unhashable"):
        hash(Point(1))


@pytest.mark.parametrize("name", ["x", "y", "total"])
def test_nothing_changes_it(name):
    point: Any = Point(1)
    with pytest.raises(FrozenInstanceError, match=name):
        setattr(point, name, 2)
    with pytest.raises(FrozenInstanceError, match=name):
        delattr(point, name)
    assert (point.x, point.y) == (1, 0)


def test_nothing_is_added_to_it():
    point: Any = Point(1)
    with pytest.raises(AttributeError):
        point.z = 1


def test_what_a_class_writes_itself_counts():
    @frozen
    class Hidden:
        text: str

        def __repr__(self) -> str:
            return "Hidden(***)"

    assert repr(Hidden("secret")) == "Hidden(***)"
    assert Hidden("secret") == Hidden("secret")


@pytest.mark.parametrize(
    ("args", "kwargs", "wrong"),
    [
        ((), {}, "x"),
        ((1,), {"x": 2}, "x"),
        ((1,), {"z": 2}, "z"),
        ((1, 2, {}, "s", 5, 6), {}, "6 values"),
    ],
)
def test_each_field_is_given_once(args, kwargs, wrong):
    point: Any = Point
    with pytest.raises(TypeError, match=f"twice: {wrong}$"):
        point(*args, **kwargs)


def test_a_default_that_is_made_is_nobody_elses():
    assert Point(1).names is not Point(1).names

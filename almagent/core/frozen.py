"""Plain data that never changes: `@frozen` is `@dataclass(frozen=True, slots=True)`, quicker to declare.

That one writes and compiles six methods for each class, 0.5 ms each time the program starts; of some ninety
classes that was a tenth of what `almagent plan` takes. Here only `__init__` is written for a class, by the same
dataclass. In return making an instance takes some microseconds more. `field(hash=...)` is not heeded.
"""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, field, fields
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    # For want of a docstring the dataclass would make one, in a third of its time.
    cls.__doc__ = cls.__doc__ or cls.__name__
    made: Any = dataclass(eq=False, repr=False, slots=True)(cls)
    compared = [f.name for f in fields(made) if f.compare]
    content = attrgetter(*compared) if compared else type

    def eq(self: object, other: object) -> Any:
        return content(self) == content(other) if type(self) is type(other) else NotImplemented

    methods = {
        "__eq__": eq,
        "__hash__": lambda self: hash(content(self)),
        "__repr__": _show,
        "__setattr__": _set_once,
        "__delattr__": _refuse,
    }
    for name in methods.keys() - vars(made).keys():  # what the class has written itself counts
        setattr(made, name, methods[name])
    return made  # type: ignore[no-any-return]


def _show(self: Any) -> str:
    shown = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _set_once(self: object, name: str, content: object) -> None:
    """By `__init__`; whoever comes later changes nothing."""
    if hasattr(self, name):
        _refuse(self, name)
    object.__setattr__(self, name, content)


def _refuse(_self: object, name: str) -> None:
    raise FrozenInstanceError(f"cannot change {name!r}")

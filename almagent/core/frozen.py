"""Plain data that never changes: `@frozen` is `@dataclass(frozen=True, slots=True)`, quicker to declare.

That one writes and compiles six methods for each class, 0.6 ms each time the program starts; of some ninety
classes that was a tenth of what `almagent plan` takes. Here the methods are shared. In return making an
instance takes some microseconds more. `field(hash=...)`, `kw_only` and `__post_init__` are not heeded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    # For want of a docstring the dataclass would make one, in a third of its time.
    cls.__doc__ = cls.__doc__ or cls.__name__
    made: Any = dataclass(init=False, eq=False, repr=False, slots=True)(cls)
    compared = [f.name for f in fields(made) if f.compare]
    content = attrgetter(*compared) if compared else type

    def eq(self: object, other: object) -> Any:
        return content(self) == content(other) if type(self) is type(other) else NotImplemented

    methods = {
        "__init__": _initializer(made),
        "__eq__": eq,
        "__hash__": lambda self: hash(content(self)),
        "__repr__": _show,
        "__setattr__": _set_once,
        "__delattr__": _refuse,
    }
    for name in methods.keys() - vars(made).keys():  # what the class has written itself counts
        setattr(made, name, methods[name])
    return made  # type: ignore[no-any-return]


def _initializer(cls: Any) -> Callable[..., None]:
    names = tuple(f.name for f in fields(cls))
    known = frozenset(names)
    defaults = {f.name: f.default for f in fields(cls) if f.default is not MISSING}
    factories = {f.name: f.default_factory for f in fields(cls) if f.default_factory is not MISSING}

    def init(self: object, *given: object, **named: object) -> None:
        content = defaults | dict(zip(names, given, strict=False)) | named
        for name in factories.keys() - content.keys():
            content[name] = factories[name]()
        wrong = content.keys() ^ known or named.keys() & set(names[: len(given)])
        if wrong or len(given) > len(names):
            what = ", ".join(sorted(wrong)) or f"{len(given)} values"
            raise TypeError(
                f"{cls.__name__}({', '.join(names)}): missing, unknown or twice: {what}"
            )
        for name in names:
            object.__setattr__(self, name, content[name])

    return init


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

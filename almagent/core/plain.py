"""Frozen data as what JSON has, and back: for what is kept on disk.

Fields may be texts, numbers, booleans, other frozen classes, tuples and mappings of these, and None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

LONGEST = 2**63  # seconds; what is longer, or NaN, was never measured


def plain(data: Any) -> Any:
    if is_dataclass(data):
        return {f.name: plain(getattr(data, f.name)) for f in fields(data)}
    if isinstance(data, Mapping):
        return {key: plain(value) for key, value in data.items()}
    return [plain(item) for item in data] if isinstance(data, tuple) else data


def revived(cls: type[T], raw: object) -> T:
    """`raw` as the frozen class that `plain` made it from. Raises ValueError, which names the field.

    A field that is not there has its default; one that another release had is left out.
    """
    if not isinstance(raw, dict):
        raise ValueError(f"{cls.__name__}: not an object")  # noqa: TRY004  bad data, not a bad call
    kinds = get_type_hints(cls)
    given = {f.name: raw[f.name] for f in fields(cls) if f.name in raw}  # type: ignore[arg-type]
    missing = [f.name for f in fields(cls) if f.name not in raw and _is_required(f)]  # type: ignore[arg-type]
    if missing:
        raise ValueError(f"{cls.__name__}: {', '.join(missing)}: missing")
    return cls(**{n: _value(kinds[n], item, f"{cls.__name__}.{n}") for n, item in given.items()})


def _is_required(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _value(kind: Any, raw: Any, name: str) -> Any:
    origin, parts = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return revived(kind, raw)  # type: ignore[arg-type]
    if origin is UnionType and NoneType in parts:
        (other,) = (part for part in parts if part is not NoneType)
        return None if raw is None else _value(other, raw, name)
    if origin is tuple and isinstance(raw, list):
        return tuple(_value(parts[0], item, name) for item in raw)
    if origin is Mapping and isinstance(raw, dict):
        return {key: _value(parts[1], item, name) for key, item in raw.items()}
    good = _is_number(raw) if kind is float else type(raw) is kind
    if not good:  # also what is no list for a tuple, and no object for a mapping
        raise ValueError(f"{name}: not what it was")
    return raw


def _is_number(raw: Any) -> bool:
    return type(raw) in {int, float} and abs(raw) < LONGEST

"""The difference of two templates in the notation of the reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from almagent.controlplane import jsontext

Path = tuple[str | int, ...]  # a text for a key, a number from 1 for a place in a list
_FIRST_LAYER = ("configurations", 1)


def difference(source: Mapping[str, Any], target: Mapping[str, Any]) -> dict[str, Any]:
    """`new`, `removed` and `edited`, each by path; an empty one is `[]`, as the hosted API writes it.

    As in the reference, list entries are numbered from 1 (`configurations/1/provision/volume_type`),
    and under `edited` the first layer has no number (`configurations/provision/instance_type`).
    """
    before, after = dict(_leaves(source, ())), dict(_leaves(target, ()))
    new = {_written(path): after[path] for path in after if path not in before}
    removed = {_written(path): before[path] for path in before if path not in after}
    edited = {
        _written(path[:1] + path[2:] if path[:2] == _FIRST_LAYER else path): {
            "oldvalue": before[path],
            "newvalue": after[path],
        }
        for path in before
        if path in after and jsontext.compact(before[path]) != jsontext.compact(after[path])
    }
    return {"new": new or [], "removed": removed or [], "edited": edited or []}


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Everything that holds nothing else; an empty object or list is a leaf."""
    children: Iterator[tuple[str | int, Any]]
    if value and isinstance(value, dict):
        children = iter(value.items())
    elif value and isinstance(value, list):
        children = iter(enumerate(value, start=1))
    else:
        yield path, value
        return
    for name, child in children:
        yield from _leaves(child, (*path, name))


def _written(path: Path) -> str:
    return "/".join(str(part) for part in path)

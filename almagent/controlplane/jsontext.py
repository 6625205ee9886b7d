"""JSON as it arrives and as it is kept."""

from __future__ import annotations

import json
import re
from typing import Any

from almagent.controlplane.errors import Malformed

_MAX_DEPTH = 64  # levels; far below what Python's own readers and writers of JSON can take

# A string literal, closed or not, or a comma right before a closing bracket: only this has no group.
_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*"?)|,(?=\s*[}\]])', re.DOTALL)


def parse(text: str, what: str) -> Any:
    """The value of `text`. Raises Malformed, naming `what`.

    Also for what could be read but not be written again: NaN, infinity, half a surrogate pair.
    """
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise Malformed(f"cannot read {what}: not valid JSON") from None
    if _deeper_than(value, _MAX_DEPTH):
        raise Malformed(f"cannot read {what}: more than {_MAX_DEPTH} levels")
    return value


def without_trailing_commas(text: str) -> str:
    """JSON as people write it: the reference's own example of a template body has such a comma."""
    return _TRAILING_COMMA.sub(r"\1", text)


def compact(value: Any) -> str:
    """One text for equal values, as far as they are written in the same order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _deeper_than(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        level = [child for one in level for child in _children(one)]
    return bool(level)


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []

"""Settings as a file: the layers of register's sources become one TOML text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from almagent.settings_layers import Layer


def render(layer: Layer) -> str:
    """Keys of the top first, then a table for each group; only what was given, no defaults."""
    top = {key[0]: given.value for key, given in layer.items() if len(key) == 1}
    groups = sorted({key[0] for key in layer if len(key) == 2})
    blocks = [_lines(top.items())]
    for group in groups:
        inner = [(key[1], given.value) for key, given in layer.items() if key[:-1] == (group,)]
        blocks.append(f"[{group}]\n{_lines(inner)}")
    return "\n".join(blocks)


def _lines(items: Iterable[tuple[str, object]]) -> str:
    return "".join(f"{name} = {_value(value)}\n" for name, value in items)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{json.dumps(name)} = {_value(v)}" for name, v in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")  # JSON's escapes are TOML's, too
    return json.dumps(value)

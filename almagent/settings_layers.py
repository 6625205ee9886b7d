"""The three places settings are given in, each read into a Layer: key -> value and where it stands.

Nothing is checked here but the form of the file, and the keys of the original's.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from almagent import failpoints
from almagent.settings import KINDS, Key, is_table
from almagent.settings_file import is_original, parse

PREFIX = "ALMAGENT_"
NO_SETTINGS = frozenset({f"{PREFIX}CONFIG", failpoints.VARIABLE})

ORIGINAL_KEYS: dict[str, Key] = {
    "UserId": ("user_id",),
    "StackId": ("stack_id",),
    "APIHost": ("api", "url"),
    "AuthorizationToken": ("api", "client_secret"),
    "Flag": ("flag",),
}
"""The JSON file of the 2019 agent, which does not look at the case of a key."""

ORIGINAL_UNUSED = frozenset(
    {"logicalstackid", "accesskey", "secretkey", "storageservice", "logbucket", "serverrole"}
)
"""What its older releases wrote as well; this agent has no use for it."""


class Given(NamedTuple):
    value: object
    place: str  # where the operator finds it: the start of an error line


Layer = dict[Key, Given]


def file_layer(file: Path, text: str) -> tuple[Layer, list[str], list[str]]:
    """The layer, warnings and problems, one line each. Raises SettingsError when the form is broken."""
    tables = parse(file, text)
    if is_original(text):
        return _original(file, tables)
    return _toml(file, tables), [], []


def _toml(file: Path, tables: dict[str, Any]) -> Layer:
    layer: Layer = {}
    for name, value in tables.items():
        leaves: Mapping[Key, object] = {(name,): value}
        if isinstance(value, dict) and is_table(name):
            leaves = {(name, inner): leaf for inner, leaf in value.items()}
        layer |= {key: Given(leaf, f"{file}: {'.'.join(key)}") for key, leaf in leaves.items()}
    return layer


def _original(file: Path, fields: dict[str, Any]) -> tuple[Layer, list[str], list[str]]:
    keys = {name.lower(): key for name, key in ORIGINAL_KEYS.items()}
    layer: Layer = {
        ("stack_id",): Given("", f"{file}: StackId"),
        ("flag",): Given("", f"{file}: Flag"),
    }
    warnings, problems = [], []
    for name, value in fields.items():
        if name.lower() in ORIGINAL_UNUSED:
            warnings.append(f"{file}: {name}: not used by this agent")
        elif value in ("", None):  # what the original had not been told
            continue
        elif key := keys.get(name.lower()):
            layer[key] = Given(value, f"{file}: {name}")
        else:
            allowed = ", ".join(ORIGINAL_KEYS)
            problems.append(f"{file}: {name}: unknown key; allowed here: {allowed}")
    host = layer.get(("api", "url"))
    if host and isinstance(host.value, str) and "://" not in host.value:
        layer["api", "url"] = Given(f"https://{host.value}", host.place)
    return layer, warnings, problems


def environment(environ: Mapping[str, str], below: Layer) -> Layer:
    """ALMAGENT_API__URL and the like; Docker's own variable counts where nothing else says it."""
    names = [name for name in environ if name.startswith(PREFIX) and name not in NO_SETTINGS]
    keys = {name: _key(name.removeprefix(PREFIX).lower(), "__") for name in names}
    layer = {
        key: Given(_from_text(key, environ[name]), f"environment: {name}")
        for name, key in keys.items()
    }
    if environ.get("DOCKER_HOST") and ("docker", "host") not in below | layer:
        layer["docker", "host"] = Given(environ["DOCKER_HOST"], "environment: DOCKER_HOST")
    return layer


def command_line(overrides: Mapping[str, str]) -> Layer:
    keys = {name: _key(name, ".") for name in overrides}
    return {
        key: Given(_from_text(key, overrides[name]), f"command line: {name}")
        for name, key in keys.items()
    }


def _key(name: str, separator: str) -> Key:
    """At most two parts: tables are one level deep."""
    return tuple(name.split(separator, 1))


def _from_text(key: Key, text: str) -> object:
    """Numbers and tables are written as in the file; text that is neither is left to be refused."""
    kind = KINDS.get(key)
    if kind is None or kind.is_text:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # no TOML, or more of it than Python takes
        return text

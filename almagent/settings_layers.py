"""The three places settings are given in, each read into a Layer: key -> value and where it stands.

Nothing is checked here but the form of the file.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, get_origin

from almagent import failpoints, original, places
from almagent.errors import SettingsError
from almagent.settings import field_of, group_of

DEFAULT_FILES = (Path(places.SETTINGS_FILE), Path(original.SETTINGS))
PREFIX = "ALMAGENT_"
NO_SETTINGS = frozenset({f"{PREFIX}CONFIG", failpoints.VARIABLE})

Key = tuple[str, ...]  # ("flag",) or ("api", "url")
ORIGINAL_KEYS: dict[str, Key] = {
    "userid": ("user_id",),
    "stackid": ("stack_id",),
    "apihost": ("api", "url"),
    "authorizationtoken": ("api", "client_secret"),
    "flag": ("flag",),
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


def read_file(config: Path | None) -> tuple[Path | None, str]:
    """`config`, else the first of DEFAULT_FILES that exists, and its text. Raises SettingsError."""
    for path in (config,) if config else DEFAULT_FILES:
        try:
            return path, path.read_text("utf-8-sig")
        except FileNotFoundError:
            if config:
                raise SettingsError([f"{path}: cannot read: no such file"]) from None
        except UnicodeDecodeError:
            raise SettingsError([f"{path}: cannot read: not UTF-8 text"]) from None
        except OSError as exc:
            raise SettingsError([f"{path}: cannot read: {exc.strerror}"]) from exc
    return None, ""


def file_layer(file: Path, text: str) -> tuple[Layer, list[str]]:
    """The layer and warnings, one line each. Raises SettingsError when the form is broken."""
    if text.lstrip().startswith("{"):
        return _original(file, text)
    return _toml(file, text), []


def _toml(file: Path, text: str) -> Layer:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        problem, _, position = str(exc).rpartition(" (at ")
        line = re.match(r"line \d+", position)
        number = line.group().removeprefix("line ") if line else str(text.count("\n") + 1)
        raise SettingsError([f"{file}:{number}: not TOML: {problem}"]) from None
    layer: Layer = {}
    for name, value in tables.items():
        leaves: Mapping[Key, object] = {(name,): value}
        if isinstance(value, dict) and group_of(name):
            leaves = {(name, inner): leaf for inner, leaf in value.items()}
        layer |= {key: Given(leaf, f"{file}: {'.'.join(key)}") for key, leaf in leaves.items()}
    return layer


def _original(file: Path, text: str) -> tuple[Layer, list[str]]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as exc:
        raise SettingsError([f"{file}:{exc.lineno}: not JSON: {exc.msg}"]) from None
    layer: Layer = {
        ("stack_id",): Given("", f"{file}: StackId"),
        ("flag",): Given("", f"{file}: Flag"),
    }
    warnings = []
    for name, value in document.items():
        if name.lower() in ORIGINAL_UNUSED:
            warnings.append(f"{file}: {name}: not used by this agent")
        elif value not in ("", None):  # what the original had not been told
            key = ORIGINAL_KEYS.get(name.lower(), (name,))
            layer[key] = Given(value, f"{file}: {name}")
    host = layer.get(("api", "url"))
    if host and isinstance(host.value, str) and "://" not in host.value:
        layer["api", "url"] = Given(f"https://{host.value}", host.place)
    return layer, warnings


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
    field = field_of(key)
    kind = field.annotation if field else str
    if kind not in (int, float) and get_origin(kind) is not dict:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text

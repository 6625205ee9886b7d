"""Where settings come from: a file, the environment, the command line, and three places for the secret.

Every problem is found in one go and told in the operator's own terms; a value is never repeated, because
it may be a secret.
"""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import ValidationError

from almagent import places
from almagent.core.model import Secret
from almagent.errors import SettingsError
from almagent.settings import Settings, absolute_or_none, field_of, group_of
from almagent.settings_file import DEFAULT_FILES, CannotRead, named, read_file, read_text
from almagent.settings_layers import (
    Given,
    Key,
    Layer,
    command_line,
    environment,
    file_layer,
)

CREDENTIAL = "client_secret"  # its name in the unit's LoadCredential=


class Loaded(NamedTuple):
    settings: Settings
    warnings: tuple[str, ...]  # one line each
    file: Path | None
    secret_from: str = ""  # where the operator finds the client secret


def load(
    environ: Mapping[str, str],
    *,
    config: Path | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Loaded:
    """`overrides` are the command line's: "api.url" -> text. Raises SettingsError."""
    file, text = read_file(named(config, environ))
    layer, warnings, problems = file_layer(file, text) if file else ({}, [], [])
    layer |= environment(environ, layer)
    layer |= command_line(overrides or {})
    place = str(file or f"{DEFAULT_FILES[0]} (not there)")
    with _added_to(problems):
        settings = _check(layer, place)
    with _added_to(problems):
        secret, secret_file = _client_secret(layer, environ, place)
    if problems:
        raise SettingsError(problems)
    for path in (file, secret_file):
        warnings += mode_warnings(path)
    warnings += _plain_http_warnings(settings.api.url, layer)
    secret_from = str(secret_file or layer["api", "client_secret"].place)
    return Loaded(_complete(settings, secret), tuple(warnings), file, secret_from)


@contextmanager
def _added_to(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except SettingsError as exc:
        problems += exc.lines


# --- the check -----------------------------------------------------------------------------------


def _check(layer: Layer, file: str) -> Settings:
    tree: dict[str, Any] = {}
    for key, given in sorted(layer.items(), key=lambda item: -len(item[0])):
        if len(key) == 1:
            tree[key[0]] = given.value  # also what stands where a table should
        else:
            tree.setdefault(key[0], {})[key[1]] = given.value
    try:
        return Settings.model_validate(tree)
    except ValidationError as exc:
        errors = exc.errors(include_input=False, include_url=False, include_context=False)
        lines = [_error_line(error["type"], error["loc"], layer, file) for error in errors]
        raise SettingsError(dict.fromkeys(lines)) from None


def _error_line(kind: str, loc: tuple[int | str, ...], layer: Layer, file: str) -> str:
    key = tuple(str(part) for part in loc[:2])
    within = (given for place, given in layer.items() if place[: len(key)] == key)
    given = layer.get(key) or next(within, None)
    place = given.place if given else f"{file}: {'.'.join(key)}"
    if kind == "extra_forbidden":
        names = (group_of(key[0]) if len(key) > 1 else Settings) or Settings
        return f"{place}: unknown key; allowed here: {', '.join(names.model_fields)}"
    if kind == "missing":
        return f"{place}: missing; it must be {_allowed(key)}"
    return f"{place}: must be {_allowed(key)}"


def _allowed(key: Key) -> str:
    field = field_of(key)
    if field is None or (len(key) == 1 and group_of(key[0])):
        return "a table"
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(get_args(field.annotation))
    return field.description or "text"


# --- what depends on other settings --------------------------------------------------------------


def _complete(settings: Settings, secret: Secret) -> Settings:
    api = settings.api.model_copy(
        update={
            "client_id": settings.api.client_id or settings.stack_id,
            "client_secret": secret,
        }
    )
    docker = settings.docker
    if "log_opts" not in docker.model_fields_set and docker.log_driver not in {
        "json-file",
        "local",
    }:
        docker = docker.model_copy(update={"log_opts": {}})  # the defaults are those two drivers'
    return settings.model_copy(update={"api": api, "docker": docker})


def _client_secret(
    layer: Layer, environ: Mapping[str, str], file: str
) -> tuple[Secret, Path | None]:
    """The secret and the file it was in, if it was in one of its own. Raises SettingsError.

    It looks at what was given, checked or not, so that a secret that is missing is told with all else.
    """
    given = layer.get(("api", "client_secret"))
    if given and given.value:
        return Secret(str(given.value)), None
    for path, saying in _secret_files(layer, environ):
        if secret := _read_secret(path, saying):
            return secret, path
    ways = f"client_secret, client_secret_file or the systemd credential {CREDENTIAL}"
    line = f"{file}: api.client_secret: missing; it must be given as one of {ways}"
    raise SettingsError([line])


def _secret_files(layer: Layer, environ: Mapping[str, str]) -> Iterator[tuple[Path, Given | None]]:
    """Where to look, and who said so: without a saying a file need not exist."""
    given = layer.get(("api", "client_secret_file"))
    file = absolute_or_none(given.value if given else places.SECRET_FILE)
    if isinstance(file, Path) and given:
        yield file, given
    if directory := environ.get("CREDENTIALS_DIRECTORY"):
        yield Path(directory, CREDENTIAL), None
    if isinstance(file, Path) and not given:
        yield file, None


def _read_secret(path: Path, given: Given | None) -> Secret:
    place = given.place if given else "api.client_secret_file"
    try:
        text = read_text(path).strip()
    except FileNotFoundError:
        if given is None:
            return Secret("")
        raise SettingsError([f"{place}: cannot read {path}: no such file"]) from None
    except CannotRead as exc:
        raise SettingsError([f"{place}: cannot read {path}: {exc}"]) from exc
    if not text:
        raise SettingsError([f"{place}: cannot use {path}: it is empty"])
    return Secret(text)


# --- what is allowed but unwise ------------------------------------------------------------------


def mode_warnings(path: Path | None) -> list[str]:
    mode = stat.S_IMODE(path.stat().st_mode) if path else 0
    if not mode & (stat.S_IRGRP | stat.S_IROTH):
        return []
    return [f"{path}: others than its owner can read it (mode {mode:04o}); chmod 600 it"]


def _plain_http_warnings(url: str, layer: Layer) -> list[str]:
    parts = urlsplit(url)
    if parts.scheme != "http" or _is_loopback(parts.hostname or ""):
        return []
    place = layer["api", "url"].place
    return [f"{place}: plain http to {parts.hostname}: the client secret travels unencrypted"]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

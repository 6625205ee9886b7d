"""Where settings come from: a file, the environment, the command line, and three places for the secret.

Every problem is found in one go and told in the operator's own terms; a value is never repeated, because
it may be a secret.
"""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from almagent import places
from almagent.core.model import Secret
from almagent.errors import SettingsError
from almagent.settings import KINDS, REQUIRED, Settings, assemble, names_beside
from almagent.settings_file import DEFAULT_FILES, CannotRead, named, read_file, read_text
from almagent.settings_kinds import absolute_or_none
from almagent.settings_layers import Given, Layer, command_line, environment, file_layer

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
    return Loaded(_complete(settings, secret, layer), tuple(warnings), file, secret_from)


@contextmanager
def _added_to(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except SettingsError as exc:
        problems += exc.lines


# --- the check -----------------------------------------------------------------------------------


def _check(layer: Layer, file: str) -> Settings:
    values, problems = {}, []
    for key, kind in KINDS.items():
        given = layer.get(key)
        if given is None:
            if key in REQUIRED:
                problems.append(f"{file}: {key[0]}: missing; it must be {kind.allowed}")
            continue
        try:
            values[key] = kind.check(given.value)
        except ValueError:
            problems.append(f"{given.place}: must be {kind.allowed}")
    for key, given in layer.items():
        if key not in KINDS:
            allowed = ", ".join(names_beside(key))
            problems.append(f"{given.place}: unknown key; allowed here: {allowed}")
    if problems:
        raise SettingsError(problems)
    return assemble(values)


# --- what depends on other settings --------------------------------------------------------------


def _complete(settings: Settings, secret: Secret, layer: Layer) -> Settings:
    client_id = settings.api.client_id or settings.stack_id
    api = replace(settings.api, client_id=client_id, client_secret=secret)
    docker = settings.docker
    if ("docker", "log_opts") not in layer and docker.log_driver not in {"json-file", "local"}:
        docker = replace(docker, log_opts={})  # the defaults are those two drivers'
    return replace(settings, api=api, docker=docker)


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
    try:
        file = absolute_or_none(given.value if given else places.SECRET_FILE)
    except ValueError:
        file = None
    if file and given:
        yield file, given
    if directory := environ.get("CREDENTIALS_DIRECTORY"):
        yield Path(directory, CREDENTIAL), None
    if file and not given:
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

"""The settings file: found, read, and taken apart by its form. Loads nothing that takes time: status needs it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from almagent import original, places
from almagent.errors import SettingsError

DEFAULT_FILES = (Path(places.SETTINGS_FILE), Path(original.SETTINGS))
LIMIT = 1 << 20  # characters; what is longer is no file of settings, and /dev/zero never ends


class CannotRead(Exception):
    """There is something, but no text to be had from it. The end of an error line."""


def read_text(path: Path) -> str:
    """Raises FileNotFoundError, CannotRead."""
    try:
        if path.is_fifo():  # whoever reads one waits for another process, perhaps for ever
            raise CannotRead("a pipe, not a file")
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(LIMIT + 1)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise CannotRead(exc.strerror) from exc
    except UnicodeDecodeError:
        raise CannotRead("not UTF-8 text") from None
    if len(text) > LIMIT:
        raise CannotRead(f"longer than {LIMIT} characters")
    return text


def named(config: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file that the command line, else the environment names; None: neither does."""
    return config or (Path(environ["ALMAGENT_CONFIG"]) if environ.get("ALMAGENT_CONFIG") else None)


def read_file(config: Path | None) -> tuple[Path | None, str]:
    """`config`, else the first of DEFAULT_FILES that exists, and its text. Raises SettingsError."""
    for path in (config,) if config else DEFAULT_FILES:
        try:
            return path, read_text(path)
        except FileNotFoundError:
            if config:
                raise SettingsError([f"{path}: cannot read: no such file"]) from None
        except CannotRead as exc:
            raise SettingsError([f"{path}: cannot read: {exc}"]) from exc
    return None, ""


def is_original(text: str) -> bool:
    """The JSON file of the 2019 agent; anything else is TOML."""
    return text.lstrip().startswith("{")


def parse(file: Path, text: str) -> dict[str, Any]:
    """Raises SettingsError when the form is broken."""
    try:
        tables: dict[str, Any] = (json if is_original(text) else tomllib).loads(text)
    except json.JSONDecodeError as exc:
        raise SettingsError([f"{file}:{exc.lineno}: not JSON: {exc.msg}"]) from None
    except tomllib.TOMLDecodeError as exc:
        problem, _, position = str(exc).rpartition(" (at ")
        line = re.match(r"line \d+", position)
        number = line.group().removeprefix("line ") if line else str(text.count("\n") + 1)
        raise SettingsError([f"{file}:{number}: not TOML: {problem}"]) from None
    except ValueError:  # Python's bound for the digits of a number
        raise SettingsError([f"{file}: cannot use: a number in it has too many digits"]) from None
    except RecursionError:
        raise SettingsError([f"{file}: cannot use: it is nested too deeply"]) from None
    return tables

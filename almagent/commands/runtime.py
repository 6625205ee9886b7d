"""Where the running daemon's socket is, found without loading all of the settings: that takes long."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from almagent.errors import SettingsError
from almagent.places import RUNTIME_DIR
from almagent.settings_file import named, parse, read_file


def runtime_directory(args: argparse.Namespace) -> Path:
    """As the settings have it. Raises SettingsError: the file that may name it cannot be used."""
    given = dict(args.assignments).get("runtime_dir") or args.runtime_dir
    return Path(given or os.environ.get("ALMAGENT_RUNTIME_DIR") or _from_file(args.config))


def _from_file(config: Path | None) -> str:
    file, text = read_file(named(config, os.environ))
    value = parse(file, text).get("runtime_dir") if file else None
    if value is None:
        return RUNTIME_DIR
    if not isinstance(value, str):
        raise SettingsError([f"{file}: runtime_dir: must be an absolute path"])
    return value

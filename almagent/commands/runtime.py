"""Where the running daemon's socket is, found without loading all of the settings: that takes long."""

from __future__ import annotations

import argparse
import os
import tomllib
from pathlib import Path

from almagent.places import RUNTIME_DIR, SETTINGS_FILE


def runtime_directory(args: argparse.Namespace) -> Path:
    """As the settings have it; but status has to work, and at once, where they cannot be read."""
    given = dict(args.assignments).get("runtime_dir") or args.runtime_dir
    return Path(given or os.environ.get("ALMAGENT_RUNTIME_DIR") or _from_file(args.config))


def _from_file(config: Path | None) -> str:
    file = config or Path(os.environ.get("ALMAGENT_CONFIG") or SETTINGS_FILE)
    try:
        value = tomllib.loads(file.read_text("utf-8-sig")).get("runtime_dir")
    except (OSError, ValueError):  # not there, not ours to read, or the original's JSON
        return RUNTIME_DIR
    return value if isinstance(value, str) else RUNTIME_DIR

"""Directories that the agent writes to, judged without making them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from almagent.adapters import disk


def existing(path: Path) -> Path:
    """The nearest one that is there."""
    while not path.exists():
        path = path.parent
    return path


def free(path: Path) -> int | None:
    """Bytes; None: not told."""
    try:
        return disk.free(path)
    except OSError:
        return None


def obstacle(path: Path) -> tuple[str, str] | None:
    """What keeps root from writing at `path`, made or still to be made, and a command that ends it."""
    place = existing(path)
    if not place.is_dir():
        return f"{place} is not a directory", shlex.join(["mv", str(place), f"{place}.old"])
    name = shlex.quote(str(place))
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        mount = f'mount -o remount,rw "$(findmnt -no TARGET -T {name})"'
        return f"{place} is on a read-only file system", mount
    if not os.access(place, os.W_OK):
        return f"{place} cannot be written", f"chattr -i {name}"
    return None

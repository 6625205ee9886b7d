"""The room on a disk."""

from __future__ import annotations

import os
from pathlib import Path


def free(path: Path) -> int:
    """Bytes for programs that are not root (what `df` calls available). Raises OSError."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize

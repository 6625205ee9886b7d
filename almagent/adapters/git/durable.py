"""Brings what was written to the disk itself, so that it is there after a power cut."""

from __future__ import annotations

import os
from pathlib import Path


def flush_file_system(place: Path) -> None:
    """All that was written to the file system of `place`: for thousands of files one wait, not thousands.

    `syncfs(2)`, which Python's os lacks; os.sync would wait for every other disk, too. Raises OSError
    also when an earlier write could not be carried out.
    """
    import ctypes  # noqa: PLC0415  loaded when used

    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(place))
    finally:
        os.close(descriptor)


def flush_names(directory: Path) -> None:
    """What was made in it, renamed and removed. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Whether what is fetched and exported fits on the disk. What serves now needs the disk, too."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from almagent.adapters import disk
from almagent.adapters.git.tree import Entry
from almagent.core.frozen import frozen

RESERVE = 8 << 20  # bytes left free, for the agent's state and the logs of containers
BLOCK = 4096  # bytes; a file takes up whole blocks
_FULL = re.compile(r"No space left on device|Disk quota exceeded|File too large")


class NoRoom(Exception):
    """It does not fit. One line with both figures."""


class TooLarge(Exception):
    """It is larger than allowed, whatever is free. One line."""


@frozen
class Room:
    """For one fetch, whose size git does not tell beforehand."""

    directory: Path
    free: int  # bytes, when it began
    most: int  # bytes that are allowed however much is free

    @property
    def limit(self) -> int:
        """Bytes that it may take."""
        return min(self.most, self.free - RESERVE)

    def failure(self, errors: Sequence[str]) -> Exception | None:
        """NoRoom or TooLarge if what a failed fetch said was about that."""
        if not _FULL.search("\n".join(errors)):
            return None
        if self.limit == self.most:
            return TooLarge(f"it is larger than {self.most} bytes")
        return _no_room(f"more than {self.limit} bytes", self.free, self.directory)


def room_for_fetch(directory: Path, most: int) -> Room:
    """Raises NoRoom when it is not worth the beginning."""
    free = disk.free(directory)
    if free <= RESERVE:
        raise _no_room(f"more than {RESERVE} bytes", free, directory)
    return Room(directory, free, most)


def check_room_for_tree(entries: Sequence[Entry], into: Path) -> None:
    """Raises NoRoom."""
    free, files = disk.free(into), os.statvfs(into)
    need = sum(-(-entry.size // BLOCK) * BLOCK for entry in entries) + RESERVE
    if need > free:
        raise _no_room(f"{need} bytes", free, into.parent)
    if files.f_files and len(entries) > files.f_favail:
        raise NoRoom(f"it has {len(entries)} files, {files.f_favail} can be made in {into.parent}")


def _no_room(need: str, free: int, directory: Path) -> NoRoom:
    return NoRoom(f"it needs {need} of disk, {free} are free in {directory}")

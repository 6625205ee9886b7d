"""The exported trees on disk: complete or not there at all, and removed when nobody needs them.

`REPOSITORY-COMMIT/` is a tree, `REPOSITORY-COMMIT.init.sh` its init script, `REPOSITORY-COMMIT.used` an
empty file whose time says when it was last asked for. What ends in `.tmp` is unfinished.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

from almagent.journal import logger
from almagent.ports import Checkout

_SCRIPT_COPY = ".init.sh.tmp"

log = logger()


def repository_key(url: str) -> str:
    """Names the mirror and, with the commit, the exports of a URL."""
    return hashlib.sha256(url.encode()).hexdigest()[:12]


class Releases:
    def __init__(self, directory: Path, keep: int) -> None:
        self.directory = directory
        self._keep = keep
        self._spare: set[Path] = set()  # kept only because they are recent, and not asked for since

    def sweep(self) -> None:
        """Remove what a killed agent left unfinished, exports and removals."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for path in self.directory.glob("*.tmp"):
            _remove(path)

    def find(self, key: str, commit: str) -> Checkout | None:
        """A complete export; asking for it makes it the most recent."""
        path = self.directory / f"{key}-{commit}"
        return self._checkout(path) if path.is_dir() else None

    def _checkout(self, path: Path) -> Checkout:
        self._spare.discard(path)
        _beside(path, ".used").touch()
        script = _beside(path, ".init.sh")
        commit = path.name.partition("-")[2]
        return Checkout(commit, path, script if script.is_file() else None)

    def begin(self, key: str, commit: str) -> Path:
        """An empty directory of its own to export to, which the container's users will be able to read."""
        prefix = f"{key}-{commit}."
        path = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=self.directory))
        path.chmod(0o755)
        return path

    @staticmethod
    def add_script(unfinished: Path, script: bytes) -> None:
        with _beside(unfinished, _SCRIPT_COPY).open("xb") as file:
            file.write(script)
            os.fchmod(file.fileno(), 0o755)

    def finish(self, unfinished: Path) -> Checkout:
        """Give the init script and then the tree its name: now it is complete.

        All of it has to be on the disk by now. A power cut could otherwise leave a tree that has its
        name and not its content.
        """
        path = unfinished.with_name(unfinished.name.partition(".")[0])
        copy = _beside(unfinished, _SCRIPT_COPY)
        if copy.exists():
            copy.rename(_beside(path, ".init.sh"))
        unfinished.rename(path)
        return self._checkout(path)

    @staticmethod
    def abandon(unfinished: Path) -> None:
        _beside(unfinished, _SCRIPT_COPY).unlink(missing_ok=True)
        _remove(unfinished)

    def collect(self, keep: Collection[str]) -> set[str]:
        """Remove all but `keep` (paths) and the most recent few; the keys of the repositories that remain."""
        recent = sorted(self._complete(), key=_last_used, reverse=True)
        self._spare = {path for path in recent[: self._keep] if str(path) not in keep}
        for path in recent[self._keep :]:
            if str(path) not in keep:
                _remove_release(path)
        return {path.name.partition("-")[0] for path in self._complete()}

    def make_room(self) -> bool:
        """Remove those that only the last collection's count kept; False if there are none."""
        spare, self._spare = self._spare, set()
        for path in spare:
            _remove_release(path)
        return bool(spare)

    def _complete(self) -> list[Path]:
        return [path for path in self.directory.iterdir() if path.is_dir() and not path.suffix]


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _last_used(path: Path) -> float:
    used = _beside(path, ".used")
    return used.stat().st_mtime if used.exists() else 0.0


def _remove_release(path: Path) -> None:
    log.info("source.release_removed", path=str(path))
    gone = path.rename(_beside(path, ".tmp"))
    _beside(path, ".init.sh").unlink(missing_ok=True)
    _beside(path, ".used").unlink(missing_ok=True)
    _remove(gone)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

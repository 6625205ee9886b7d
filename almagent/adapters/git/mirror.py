"""One bare repository per URL: holds what was fetched, and is no more than a cache."""

from __future__ import annotations

import shutil
from pathlib import Path

from almagent.adapters.git.runner import NOT_INSTALLED, Finished, Git
from almagent.adapters.git.verdicts import Damaged, last_words
from almagent.ports import Refused

FETCHED = "refs/almagent/fetched"  # what was asked for last; the next fetch builds on it
MAX_PACKS = 10  # every fetch adds one; above this, what is still reachable goes into one

# Outranks the attributes in the repository: they start no filter and expand no text. A format like
# $Format:%<(2000000000)%s$ would grow without bound, behind the caps on what is exported.
_ATTRIBUTES = "* -export-subst -filter -working-tree-encoding\n"
_LEFTOVERS = ("*.lock", "refs/**/*.lock", "objects/*/tmp_*", "objects/*/*.lock")


class Mirror:
    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def exists(self) -> bool:
        return (self.path / "HEAD").exists()

    async def open(self, git: Git) -> None:
        """Make it if it is not there, remove what children of a killed agent left in it."""
        if not self.exists:
            await self._make(git)
        self.sweep()

    def sweep(self) -> None:
        """Remove what children left that failed or were killed: a pack that did not fit, for one."""
        for leftover in [path for pattern in _LEFTOVERS for path in self.path.glob(pattern)]:
            leftover.unlink(missing_ok=True)

    async def _make(self, git: Git) -> None:
        self.discard()
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = str(self.path)
        self._expect(await git.run(None, "init", "--quiet", "--bare", "--template=", "--", path))
        self.path.chmod(0o700)
        (self.path / "info").mkdir(exist_ok=True)
        (self.path / "info" / "attributes").write_text(_ATTRIBUTES, encoding="ascii")

    def discard(self) -> None:
        if self.path.exists():
            shutil.rmtree(self.path)

    async def look_up(self, git: Git, name: str) -> str | None:
        """The full name of the commit that `name` stands for here; None: not here, or not one only."""
        found = await git.run(
            *(self.path, "rev-parse", "--verify", "--quiet", "--end-of-options"), name + "^{commit}"
        )
        return found.text if found.returncode == 0 else None

    async def tidy(self, git: Git) -> None:
        if sum(1 for _ in self.path.glob("objects/pack/*.pack")) > MAX_PACKS:
            self._expect(await git.run(self.path, "gc", "--quiet", "--prune=now"))

    @staticmethod
    def _expect(finished: Finished) -> None:
        if finished.returncode == NOT_INSTALLED:
            raise Refused("cannot fetch code: git is not installed")
        if finished.returncode != 0:
            raise Damaged(last_words(finished.errors, ()))

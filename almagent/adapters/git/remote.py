"""The repository at its server: what names it has, and bringing what one of them means into the mirror."""

from __future__ import annotations

import re
from collections.abc import Callable

from almagent.adapters.git.access import Access
from almagent.adapters.git.mirror import FETCHED, Mirror
from almagent.adapters.git.runner import Finished, Progress
from almagent.adapters.git.verdicts import Missing
from almagent.journal import logger

log = logger()

FULL_COMMIT = re.compile(r"[0-9a-fA-F]{40}")
_SHORT_COMMIT = re.compile(r"[0-9a-fA-F]{7,39}")
_NO_SHALLOW = re.compile(r"does not support shallow")
_NOT_GIVEN = re.compile(r"not our ref|unadvertised object")

Judge = Callable[[Finished], Exception]


class Remote:
    """Spoken to with one access. `branches` are names it was seen to have as branches.

    Every exchange raises Missing, Damaged, Refused or Unavailable, whichever `judge` finds.
    """

    def __init__(
        self,
        *,
        url: str,
        mirror: Mirror,
        access: Access,
        judge: Judge,
        branches: set[str],
        progress: Progress,
    ) -> None:
        self._url = url
        self._mirror = mirror
        self._git = access.git
        self._judge = judge
        self._branches = branches
        self._progress = progress

    async def bring(self, reference: str) -> str:
        """Fetch what `reference` means now; the name under which the mirror has it.

        Branches come before tags, both before short commits. A name known as a branch is fetched in one
        exchange; another one is looked up first among the remote's full names.
        """
        if FULL_COMMIT.fullmatch(reference):
            return await self._full_commit(reference.lower())
        if reference in ("", "HEAD"):
            return await self._fetch("HEAD")
        if reference.startswith("refs/"):
            return await self._fetch(reference)
        if reference in self._branches:
            try:
                return await self._fetch(f"refs/heads/{reference}")
            except Missing:
                self._branches.discard(reference)
        return await self._look_up(reference)

    async def _look_up(self, reference: str) -> str:
        branch, tag = f"refs/heads/{reference}", f"refs/tags/{reference}"
        there = await self._names(branch, tag)
        if branch in there:
            if tag in there:
                log.warning("source.ambiguous", url=self._url, reference=reference, taken=branch)
            self._branches.add(reference)
            return await self._fetch(branch)
        if tag in there:
            return await self._fetch(tag)
        if _SHORT_COMMIT.fullmatch(reference):
            return await self._commit_of_all(reference)
        raise Missing

    async def _full_commit(self, sha: str) -> str:
        """Most servers give a commit by its name; with the others all history is fetched."""
        fetched = await self._try(sha)
        if fetched.returncode == 0:
            return FETCHED
        if not _NOT_GIVEN.search("\n".join(fetched.errors)):
            raise self._judge(fetched)
        return await self._commit_of_all(sha)

    async def _commit_of_all(self, name: str) -> str:
        deepen = ["--unshallow"] if (self._mirror.path / "shallow").exists() else []
        refspecs = ("+refs/heads/*:refs/almagent/heads/*", "+refs/tags/*:refs/almagent/tags/*")
        await self._exchange(
            "fetch", "--progress", "--no-tags", "--prune", *deepen, "--", self._url, *refspecs
        )
        commit = await self._mirror.look_up(self._git, name)
        if commit is None:
            raise Missing
        return commit

    async def _fetch(self, name: str) -> str:
        fetched = await self._try(name)
        if fetched.returncode != 0:
            raise self._judge(fetched)
        return FETCHED

    async def _try(self, name: str) -> Finished:
        """One commit with its tree, without history, where the server can do that."""
        target = ("--", self._url, f"+{name}:{FETCHED}")
        fetched = await self._run("fetch", "--progress", "--no-tags", "--depth=1", *target)
        if _NO_SHALLOW.search("\n".join(fetched.errors)):
            fetched = await self._run("fetch", "--progress", "--no-tags", *target)
        return fetched

    async def _names(self, *names: str) -> set[str]:
        """Those of `names` that the remote has. git takes its arguments as tails of names."""
        listed = await self._exchange("ls-remote", "--", self._url, *names)
        there = {line.partition("\t")[2] for line in listed.text.splitlines()}
        return there.intersection(names)

    async def _exchange(self, *args: str) -> Finished:
        finished = await self._run(*args)
        if finished.returncode != 0:
            raise self._judge(finished)
        return finished

    async def _run(self, *args: str) -> Finished:
        return await self._git.run(self._mirror.path, *args, progress=self._progress)

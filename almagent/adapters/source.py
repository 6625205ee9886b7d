"""Code from git: fetched into a bare mirror, exported by commit, without anything of git in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from almagent.adapters.git.access import Access, Doorkeeper
from almagent.adapters.git.durable import flush_file_system, flush_names
from almagent.adapters.git.export import (
    Caps,
    find_lfs_pointers,
    judge_tree,
    read_init_script,
    write_tree,
)
from almagent.adapters.git.hostkeys import HostKeys
from almagent.adapters.git.mirror import Mirror
from almagent.adapters.git.objects import describe, find_commit
from almagent.adapters.git.releases import Releases, repository_key
from almagent.adapters.git.remote import FULL_COMMIT, Remote
from almagent.adapters.git.room import NoRoom, Room, TooLarge, room_for_fetch
from almagent.adapters.git.runner import MAX_OUTPUT, NOT_INSTALLED, Finished, Git
from almagent.adapters.git.tree import Entry, TreeError, printable
from almagent.adapters.git.verdicts import Damaged, Missing, fetch_failure, last_words
from almagent.adapters.threads import Door
from almagent.core.gitref import GitRefError, check_reference, parse_repository
from almagent.core.model import GitSource
from almagent.journal import logger
from almagent.ports import Checkout, Progress, Refused, Unavailable, no_progress

log = logger()

REMOVE_TIMEOUT = 120  # seconds to remove several times as many
FLUSH_TIMEOUT = 120  # seconds for a slow disk to take them, with all that others have written


class GitSourceAdapter:
    """The Source port. Construct it only under the lock of `runtime_dir`: it removes keys left there.

    `timeout` bounds one checkout as a whole, in seconds. The caps: 50,000 files are several times a large
    application with its dependencies, and of 1 GiB a small root disk holds a few releases.
    """

    def __init__(
        self,
        *,
        state_dir: Path,
        runtime_dir: Path,
        known_hosts_file: Path | None,
        timeout: float,
        keep_releases: int,
        max_files: int = 50_000,
        max_bytes: int = 1 << 30,
    ) -> None:
        self._mirrors = state_dir / "mirror"
        self._timeout = timeout
        self._caps = Caps(max_files, max_bytes)
        self._host_keys = HostKeys(known_hosts_file, state_dir / "known_hosts")
        self._doorkeeper = Doorkeeper(runtime_dir, self._host_keys)
        self._releases = Releases(state_dir / "releases", keep_releases)
        self._git = Git(directory=state_dir, largest_file=max_bytes)
        self._branches: dict[str, set[str]] = {}  # per URL: references known to be branches
        self._swept = False
        self._turn = asyncio.Lock()
        # mirror and commit, until it has been told what people know that by
        self._exported: tuple[Path, str] | None = None
        self._door = Door("source", limit=2)

    async def checkout(self, source: GitSource, progress: Progress = no_progress) -> Checkout:
        _check(source)
        async with self._in_turn(f"cannot fetch {source.url}"):
            key = repository_key(source.url)
            if FULL_COMMIT.fullmatch(source.reference):
                found = self._releases.find(key, source.reference.lower())
                if found:
                    return found
            return await self._refresh(source, Mirror(self._mirrors / f"{key}.git"), progress)

    async def collect(self, keep: Collection[str]) -> None:
        """While a checkout runs this does nothing: the next call will find the same.

        No release waits for this, so afterwards it tells about the commit that was exported last.
        """
        if self._turn.locked():
            return
        async with self._in_turn("cannot remove old code"):
            used = await self._door.call(self._releases.collect, keep, timeout=REMOVE_TIMEOUT)
            for path in self._mirrors.glob("*.git"):
                mirror = Mirror(path)
                if path.stem in used:
                    await self._tidy(mirror)
                else:
                    await self._door.call(mirror.discard, timeout=REMOVE_TIMEOUT)
            if self._exported and self._exported[0].exists():
                await describe(self._git, *self._exported)
            self._exported = None

    @asynccontextmanager
    async def _in_turn(self, what: str) -> AsyncIterator[None]:
        """One at a time, each within the deadline; what the system says becomes a port's error."""
        try:
            async with asyncio.timeout(self._timeout), self._turn:
                if not self._swept:
                    await self._door.call(self._releases.sweep, timeout=REMOVE_TIMEOUT)
                    self._swept = True
                yield
        except TimeoutError as exc:
            raise Unavailable(f"{what}: no end within {self._timeout:g} s") from exc
        except OSError as exc:
            where = f" ({exc.filename})" if exc.filename else ""
            raise Unavailable(f"{what}: {exc.strerror or exc}{where}") from exc

    async def _tidy(self, mirror: Mirror) -> None:
        try:
            await mirror.tidy(self._git)
        except Damaged as exc:
            log.warning("source.mirror_damaged", reason=str(exc))
            await self._door.call(mirror.discard, timeout=REMOVE_TIMEOUT)

    async def _refresh(self, source: GitSource, mirror: Mirror, progress: Progress) -> Checkout:
        """Fetch and export; a mirror that turns out damaged is made anew once, room is made once."""
        while True:
            existed = mirror.exists
            try:
                room = room_for_fetch(self._git.directory, self._caps.bytes)
                await self._open(mirror, source)
                commit, listing = await self._obtain(source, mirror, room, progress)
                found = self._releases.find(mirror.path.stem, commit)
                return found or await self._export(mirror, commit, listing)
            except Missing as exc:
                raise Refused(_not_found(source, str(exc))) from exc
            except TooLarge as exc:
                raise Refused(f"cannot fetch {source.url}: {exc}") from exc
            except TreeError as exc:
                raise Refused(f"cannot export {source.url}: {exc}") from exc
            except NoRoom as exc:
                log.warning("source.no_room", url=source.url, reason=str(exc))
                if not await self._door.call(self._releases.make_room, timeout=REMOVE_TIMEOUT):
                    raise Refused(f"cannot fetch {source.url}: {exc}") from exc
            except Damaged as exc:
                log.warning("source.mirror_damaged", url=source.url, reason=str(exc))
                await self._door.call(mirror.discard, timeout=REMOVE_TIMEOUT)
                if not existed:
                    raise Unavailable(f"cannot read what came from {source.url}: {exc}") from exc

    async def _open(self, mirror: Mirror, source: GitSource) -> None:
        try:
            await mirror.open(self._git)
        except Damaged as exc:
            raise Unavailable(f"cannot keep a mirror of {source.url}: {exc}") from exc

    async def _obtain(
        self, source: GitSource, mirror: Mirror, room: Room, progress: Progress
    ) -> tuple[str, bytes]:
        """The commit that is meant and its listing. One that is named in full may be here already."""
        if FULL_COMMIT.fullmatch(source.reference):
            with suppress(Damaged, Missing):
                return await self._look_at(mirror, source.reference.lower())
        return await self._look_at(mirror, await self._fetch(source, mirror, room, progress))

    async def _fetch(
        self, source: GitSource, mirror: Mirror, room: Room, progress: Progress
    ) -> str:
        """What the reference means now, brought into the mirror; its name there."""
        log.info("source.fetching", url=source.url, reference=source.reference)
        git = replace(self._git, largest_file=room.limit)
        async with self._doorkeeper.let_in(git, source) as access:
            remote = Remote(
                url=source.url,
                mirror=mirror,
                access=access,
                judge=lambda finished: self._judge(source, access, room, finished),
                branches=self._branches.setdefault(source.url, set()),
                progress=progress,
            )
            try:
                return await remote.bring(source.reference)
            finally:
                mirror.sweep()

    def _judge(
        self, source: GitSource, access: Access, room: Room, finished: Finished
    ) -> Exception:
        if finished.returncode == NOT_INSTALLED:
            return Refused(f"cannot fetch {source.url}: git is not installed")
        changed = self._host_keys.failure(source.url, finished.errors)
        full = room.failure(finished.errors)
        return changed or full or fetch_failure(source.url, finished.errors, access.secrets)

    async def _look_at(self, mirror: Mirror, name: str) -> tuple[str, bytes]:
        """The commit and the listing of its tree, both read at the same time."""
        listing = asyncio.create_task(self._list(mirror, name))
        try:
            return await find_commit(self._git, mirror, name), await listing
        finally:
            listing.cancel()
            await asyncio.gather(listing, return_exceptions=True)

    async def _list(self, mirror: Mirror, name: str) -> bytes:
        listed = await self._git.run(mirror.path, "ls-tree", "-r", "-l", "-z", name)
        if len(listed.output) > MAX_OUTPUT:
            raise TreeError(f"it has more than {self._caps.files} files")
        if listed.returncode != 0:
            raise Damaged(last_words(listed.errors, ()))
        return listed.output

    async def _export(self, mirror: Mirror, commit: str, listing: bytes) -> Checkout:
        started = time.monotonic()
        tree = self._releases.begin(mirror.path.stem, commit)
        try:
            files, size = await self._write(mirror, commit, listing, tree)
            done = await self._complete(tree)
        finally:
            if tree.exists():
                await self._door.call(self._releases.abandon, tree, timeout=REMOVE_TIMEOUT)
        log.info(
            "source.exported",
            commit=commit,
            files=files,
            bytes=size,
            took_s=round(time.monotonic() - started, 3),
        )
        self._exported = (mirror.path, commit)
        return done

    async def _write(
        self, mirror: Mirror, commit: str, listing: bytes, tree: Path
    ) -> tuple[int, int]:
        """How many files, and their bytes."""
        where = (self._git, mirror.path)
        judge = partial(judge_tree, *where, listing, tree, caps=self._caps, door=self._door)
        entries = await write_tree(*where, commit, tree, judge)
        await self._warn(mirror, entries, tree)
        return len(entries), sum(entry.size for entry in entries)

    async def _complete(self, tree: Path) -> Checkout:
        """Names come last, after all that they stand for is on the disk."""
        script = read_init_script(tree)
        if script is not None:
            self._releases.add_script(tree, script)
        await self._door.call(flush_file_system, tree, timeout=FLUSH_TIMEOUT)
        done = self._releases.finish(tree)
        await self._door.call(flush_names, tree.parent, timeout=FLUSH_TIMEOUT)
        return done

    async def _warn(self, mirror: Mirror, entries: list[Entry], tree: Path) -> None:
        """Tell what a person would expect to be there, but is not."""
        submodules = [entry.path for entry in entries if entry.is_submodule]
        pointers = await find_lfs_pointers(self._git, mirror.path, entries, tree, self._door)
        for event, paths in (("source.submodules", submodules), ("source.lfs_pointers", pointers)):
            if paths:
                log.warning(event, count=len(paths), first=printable(paths[0]))


def _check(source: GitSource) -> None:
    """A second wall behind the document's: nothing else reaches git."""
    try:
        url, _, _ = parse_repository(source.url, has_key=bool(source.private_key))
        check_reference(source.reference)
    except GitRefError as exc:
        raise Refused(f"cannot fetch code: the repository or reference {exc}") from exc
    if url != source.url:
        raise Refused("cannot fetch code: the repository's address is not in its plain form")


def _not_found(source: GitSource, why: str) -> str:
    what = f'reference "{source.reference}"' if source.reference else "a default branch"
    return f"cannot find {what} in {source.url}" + (f": {why}" if why else "")

"""Writes one commit's tree to a directory, after everything in it has been judged."""

from __future__ import annotations

import os
import stat
from asyncio.subprocess import DEVNULL
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fcntl import F_SETPIPE_SZ, fcntl
from pathlib import Path
from typing import BinaryIO

from almagent.adapters.git.descriptors import closing
from almagent.adapters.git.objects import read_blobs
from almagent.adapters.git.room import check_room_for_tree
from almagent.adapters.git.runner import Git, child, run
from almagent.adapters.git.tree import (
    Entry,
    TreeError,
    check_entries,
    check_links,
    links_to_read,
    parse_listing,
)
from almagent.adapters.git.verdicts import Damaged, last_words
from almagent.adapters.threads import Door
from almagent.core.frozen import frozen
from almagent.journal import logger

log = logger()

INIT_SCRIPTS = ("mobingi-init.sh", "mobingi-install.sh")  # the first that is there counts
MAX_INIT_SCRIPT = 1 << 20  # bytes
MAX_ATTRIBUTES = 100  # .gitattributes files that are looked at
MAX_ATTRIBUTES_SIZE = 100_000  # bytes of one of them
READ_TIMEOUT = 60  # seconds to look at tens of thousands of files on a slow disk
PIPE_SIZE = 1 << 20  # bytes that git may be ahead of tar

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LFS_SIZES = range(100, 1024)  # bytes of a pointer; the specification allows less than 1024


@frozen
class Caps:
    files: int
    bytes: int


async def judge_tree(
    git: Git, mirror: Path, listing: bytes, into: Path, *, caps: Caps, door: Door
) -> list[Entry]:
    """The entries of a listing that may be written below `into`. Raises TreeError, NoRoom, Damaged."""
    entries = await door.call(_accept, listing, caps, timeout=READ_TIMEOUT)
    links = links_to_read(entries)
    targets = await read_blobs(git, mirror, [link.sha for link in links])
    names = [link.path for link in links]
    found = dict(zip(names, map(os.fsdecode, targets), strict=True))
    await door.call(check_links, entries, found, timeout=READ_TIMEOUT)
    await door.call(check_room_for_tree, entries, into, timeout=READ_TIMEOUT)
    return entries


def _accept(listing: bytes, caps: Caps) -> list[Entry]:
    try:
        return check_entries(parse_listing(listing), caps.files, caps.bytes)
    except ValueError as exc:  # git has no size for an object that it cannot read
        raise Damaged("an object is missing or broken") from exc


async def write_tree(
    git: Git, mirror: Path, commit: str, into: Path, judge: Callable[[], Awaitable[list[Entry]]]
) -> list[Entry]:
    """`git archive | tar`: no index, no hook, times of the commit; the entries that `judge` accepted.

    It judges while git reads, before anything is written. Raises Damaged, TreeError, NoRoom.
    """
    theirs, ours = os.pipe()
    archive = git.command(mirror, "archive", "--format=tar", commit)
    extract = ["tar", "--extract", "--file=-", f"--directory={into}"]
    extract += ["--no-same-owner", "--no-same-permissions"]
    with closing(theirs), ExitStack() as until_started:
        until_started.enter_context(closing(ours))
        with suppress(OSError):  # a smaller one is only slower
            fcntl(ours, F_SETPIPE_SZ, PIPE_SIZE)
        async with child(git, archive, stdout=ours, stderr=DEVNULL) as writer:
            until_started.close()  # else tar would never see the end of its input
            entries = await judge()
            extracted = await run(git, extract, stdin=theirs)
            if extracted.returncode != 0:
                raise TreeError(f"tar says: {last_words(extracted.errors, ())}")
            if await writer.wait() != 0:
                raise Damaged(f"git archive ended with {writer.returncode}")
            return entries


async def find_lfs_pointers(
    git: Git, mirror: Path, entries: Sequence[Entry], tree: Path, door: Door
) -> list[str]:
    """Paths whose content is elsewhere: git-lfs is not used, what is deployed is the pointer."""
    attributes = [entry.sha for entry in entries if _tells_attributes(entry)]
    texts = await read_blobs(git, mirror, attributes[:MAX_ATTRIBUTES])
    if not any(b"filter=lfs" in text for text in texts):
        return []
    small = [e.path for e in entries if e.size in _LFS_SIZES and not e.is_link]
    return await door.call(_pointers, tree, small, timeout=READ_TIMEOUT)


def _tells_attributes(entry: Entry) -> bool:
    name = entry.path.rpartition("/")[2]
    return name == ".gitattributes" and 0 < entry.size <= MAX_ATTRIBUTES_SIZE


def _pointers(tree: Path, paths: Sequence[str]) -> list[str]:
    return [path for path in paths if _begins_with(tree / path, _LFS_POINTER)]


def _begins_with(path: Path, start: bytes) -> bool:
    try:
        with _open_file(path) as file:
            return file.read(len(start)) == start
    except OSError:  # export-ignore has left it out
        return False


def read_init_script(tree: Path) -> bytes | None:
    """The repository's init script, if it is a plain file; a link is told and not followed."""
    for name in INIT_SCRIPTS:
        try:
            with _open_file(tree / name) as file:
                script = file.read(MAX_INIT_SCRIPT + 1)
        except FileNotFoundError:
            continue
        except OSError:
            log.warning("source.init_script_ignored", name=name, reason="not a plain file")
            continue
        if len(script) > MAX_INIT_SCRIPT:
            raise TreeError(f"its {name} is larger than {MAX_INIT_SCRIPT} bytes")
        return script
    return None


@contextmanager
def _open_file(path: Path) -> Iterator[BinaryIO]:
    """Opens plain files only. Raises OSError for anything else."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise IsADirectoryError(path)
        yield file

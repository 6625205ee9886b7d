"""What a commit's tree would do to this host if it were written out: judged before a byte is written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from sys import intern
from typing import NamedTuple

MAX_LINKS = 5_000  # symbolic links; package managers make some thousand
MAX_LINK_TARGET = 1024  # bytes
MAX_LINK_STEPS = 1024  # components walked to follow one link
MAX_LINK_HOPS = 40  # links followed for one path, the kernel's own limit

_LINK, _SUBMODULE = "120000", "160000"
_BAD_PARTS = ("//", "/./", "/../", "/.git/")


class TreeError(Exception):
    """The tree must not be written out. One line that names the path."""


class Entry(NamedTuple):
    """A tuple, because there are tens of thousands of them."""

    mode: str  # git's: 100644, 100755, 120000 (symbolic link), 160000 (submodule)
    sha: str
    size: int  # bytes
    path: str

    @property
    def is_link(self) -> bool:
        return self.mode == _LINK

    @property
    def is_submodule(self) -> bool:
        return self.mode == _SUBMODULE


def parse_listing(listing: bytes) -> Iterator[Entry]:
    """The output of `git ls-tree -r -l -z`."""
    for line in re.finditer(rb"[^\0]+", listing):
        facts, _, path = line[0].partition(b"\t")
        mode, _, sha, size = facts.decode("ascii").split()
        yield Entry(intern(mode), sha, 0 if size == "-" else int(size), os.fsdecode(path))


def check_entries(entries: Iterable[Entry], max_files: int, max_bytes: int) -> list[Entry]:
    """All entries, if they stay within the caps and have paths below the tree. Raises TreeError."""
    accepted: list[Entry] = []
    paths: set[str] = set()
    total = 0
    for entry in entries:
        total += entry.size
        if len(accepted) >= max_files:
            raise TreeError(f"it has more than {max_files} files")
        if total > max_bytes:
            raise TreeError(f"with {printable(entry.path)} it is larger than {max_bytes} bytes")
        if entry.path in paths or _has_bad_part(entry.path):
            raise TreeError(f"its path {printable(entry.path)} is not allowed")
        accepted.append(entry)
        paths.add(entry.path)
    return accepted


def _has_bad_part(path: str) -> bool:
    wrapped = f"/{path}/".lower()
    return any(part in wrapped for part in _BAD_PARTS)


def links_to_read(entries: Sequence[Entry]) -> list[Entry]:
    """The symbolic links, if they are few and short. Raises TreeError."""
    links = [entry for entry in entries if entry.is_link]
    if len(links) > MAX_LINKS:
        raise TreeError(f"it has more than {MAX_LINKS} symbolic links")
    for link in links:
        if link.size > MAX_LINK_TARGET:
            raise TreeError(f"its symbolic link {printable(link.path)} is too long")
    return links


def check_links(entries: Sequence[Entry], links: Mapping[str, str]) -> None:
    """Every link (path -> target) ends inside the tree, no path goes through one. Raises TreeError."""
    for entry in entries if links else ():
        if any(str(parent) in links for parent in PurePosixPath(entry.path).parents):
            raise TreeError(f"its path {printable(entry.path)} goes through a symbolic link")
    for path in links:
        if not _stays_inside(path, links):
            raise TreeError(f"its symbolic link {printable(path)} leads out of the tree")


def _stays_inside(path: str, links: Mapping[str, str]) -> bool:
    """Follow `path` as the kernel would; a walk that does not end is not inside."""
    todo, at, hops = list(reversed(path.split("/"))), list[str](), 0
    for _ in range(MAX_LINK_STEPS):
        if not todo:
            return True
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not at:
                return False
            at.pop()
            continue
        target = links.get("/".join([*at, part]))
        if target is None:
            at.append(part)
            continue
        hops += 1
        if hops > MAX_LINK_HOPS or target.startswith("/"):
            return False
        todo.extend(reversed(target.split("/")))
    return False


def printable(path: str) -> str:
    """A path of the repository's choice, fit for one line of text."""
    return "".join(sign if sign.isprintable() else "?" for sign in path)[:200]

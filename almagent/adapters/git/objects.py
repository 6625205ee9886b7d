"""Reads what a release needs to know of the mirror's objects, in children as short as the reading."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from almagent.adapters.git.descriptors import closing
from almagent.adapters.git.mirror import Mirror
from almagent.adapters.git.runner import Git, run
from almagent.adapters.git.verdicts import Damaged, Missing, last_words
from almagent.journal import logger

_HISTORY = Path(__file__).with_name("history.py")

log = logger()


async def find_commit(git: Git, mirror: Mirror, name: str) -> str:
    """The commit that `name` (a full reference or object name) stands for; annotated tags are peeled.

    Raises Damaged when it is not there or not whole, Missing when it is no commit.
    """
    commit = await mirror.look_up(git, name)
    if commit is not None:
        return commit
    kind = await git.run(mirror.path, "cat-file", "-t", name + "^{}")
    if kind.returncode == 0 and kind.text != "commit":
        raise Missing(f"it is a {kind.text}, not a commit")
    raise Damaged(last_words(kind.errors, ()))


async def read_blobs(git: Git, mirror: Path, shas: Sequence[str]) -> list[bytes]:
    """The content of blobs that are known to be small. Raises Damaged."""
    if not shas:
        return []
    with closing(os.memfd_create("blobs")) as wanted:
        os.write(wanted, "".join(f"{sha}\n" for sha in shas).encode())
        read = await run(git, git.command(mirror, "cat-file", "--batch"), stdin=wanted)
    if read.returncode != 0:
        raise Damaged(last_words(read.errors, ()))
    return list(_contents(read.output))


def _contents(batch: bytes) -> Iterator[bytes]:
    """Of each object: a line that ends with its size, and it with a line's end. Raises Damaged."""
    stream = io.BytesIO(batch)
    for line in iter(stream.readline, b""):
        size = line.split()[-1]
        if not size.isdigit():
            raise Damaged("an object is missing")
        yield stream.read(int(size))
        stream.read(1)


async def describe(git: Git, mirror: Path, commit: str) -> None:
    """Log what people know it by. Nothing depends on it: a failure is told, and that is all."""
    told = await run(git, [sys.executable, "-I", str(_HISTORY), str(mirror), commit])
    if told.returncode == 0:
        log.info("source.commit", commit=commit, **json.loads(told.output))
    else:
        reason = last_words(told.errors, ())
        log.warning("source.commit_unknown", commit=commit, reason=reason)

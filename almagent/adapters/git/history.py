"""Reads objects of the mirror with GitPython: peeling, decoding and dates are its strength.

It is imported at the first use: its import runs `git version` and fails where git is missing. Its
`git cat-file` children read only, live as long as the block and end when this process does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from almagent.adapters.git.runner import ENVIRONMENT
from almagent.adapters.git.verdicts import Damaged, Missing

if TYPE_CHECKING:
    import git

MAX_COMMIT = 1 << 20  # bytes of a commit object with its message


@dataclass(frozen=True, slots=True)
class Commit:
    sha: str
    authored: str  # ISO 8601
    summary: str  # first line of the message, printable, bounded


def read_commit(mirror: Path, name: str) -> Commit:
    """The commit that `name` (a full reference or object name) stands for; annotated tags are peeled.

    Raises Damaged when it is not there or not whole, Missing when it is no commit.
    """
    with _open(mirror) as repo:
        commit = repo.rev_parse(name)
        while commit.type == "tag":
            commit = commit.object
        if commit.type != "commit":
            raise Missing(f"it is a {commit.type}, not a commit")
        if commit.size > MAX_COMMIT:
            raise Damaged(f"commit {commit.hexsha} is larger than {MAX_COMMIT} bytes")
        summary = "".join(sign if sign.isprintable() else " " for sign in str(commit.summary))
        return Commit(commit.hexsha, commit.authored_datetime.isoformat(), summary[:80])


def read_blobs(mirror: Path, shas: Sequence[str]) -> list[bytes]:
    """The content of blobs that are known to be small. Raises Damaged."""
    with _open(mirror) as repo:
        return [bytes(repo.odb.stream(bytes.fromhex(sha)).read()) for sha in shas]


@contextmanager
def _open(mirror: Path) -> Iterator[git.Repo]:
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import git  # noqa: PLC0415 - see above

    trouble: tuple[Any, ...] = (git.GitError, git.ODBError, ValueError, OSError, LookupError)
    try:
        with git.Repo(mirror, expand_vars=False) as repo:
            repo.git.update_environment(**ENVIRONMENT, GIT_DIR=str(mirror))
            yield repo
    except trouble as exc:
        raise Damaged(f"cannot read its objects: {type(exc).__name__}") from exc

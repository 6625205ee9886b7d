"""Tells what people know a commit by, as one JSON object: `history.py REPOSITORY COMMIT`.

GitPython decodes what commits hold, whatever their encoding and zone. It is loaded by this program, which
lives for a moment, and not by the agent, which would keep the 3 MB that it takes.
"""

from __future__ import annotations

import json
import sys

import git

MAX_COMMIT = 1 << 20  # bytes of a commit object with its message


def describe(repository: str, sha: str) -> dict[str, str]:
    """`authored`, in ISO 8601, and `summary`: the first line of the message, printable, bounded."""
    with git.Repo(repository, expand_vars=False) as repo:
        repo.git.update_environment(GIT_DIR=repository)
        commit = repo.commit(sha)
        if commit.size > MAX_COMMIT:
            sys.exit(f"error: the commit is larger than {MAX_COMMIT} bytes")
        summary = "".join(sign if sign.isprintable() else " " for sign in str(commit.summary))
        return {"authored": commit.authored_datetime.isoformat(), "summary": summary[:80]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(describe(*sys.argv[1:])))

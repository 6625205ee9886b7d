"""A process that waits for most of its life takes little memory: what is to be told before it starts."""

from __future__ import annotations

import os
import sys

TOLD = {
    "MALLOC_ARENA_MAX": "1",  # the C library gives threads heaps of their own, more than 1 MB in all
    "FROZENLIST_NO_EXTENSIONS": "1",  # else it loads the C++ library, another MB, for three lists
    "PYTHONNODEBUGRANGES": "1",  # the columns in tracebacks, a third of a MB; their lines remain
}


def start_lean() -> None:
    """Start the program of this process once more, unless it has been told. What the user says counts."""
    if TOLD.keys() <= os.environ.keys():
        return
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], TOLD | os.environ)  # noqa: S606  no shell

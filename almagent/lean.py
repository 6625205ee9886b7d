"""A process that waits for most of its life takes little memory; one that ends at once, little time."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import TYPE_CHECKING

from almagent.journal import before_the_first_event

if TYPE_CHECKING:
    from almagent.redaction import Redactor

LIBRARIES = {
    "FROZENLIST_NO_EXTENSIONS": "1",  # else it loads the C++ library, 1 MB and 2 ms, for three lists
}
TOLD = {
    **LIBRARIES,
    "MALLOC_ARENA_MAX": "1",  # the C library gives threads heaps of their own, more than 1 MB in all
    "MALLOC_TRIM_THRESHOLD_": "131072",  # its default, fixed; else it grows with the first large buffer
    "PYTHONNODEBUGRANGES": "1",  # the columns in tracebacks, a third of a MB; their lines remain
}


def start_lean() -> None:
    """Start the program of this process once more, unless it has been told. What the user says counts."""
    if TOLD.keys() <= os.environ.keys():
        return
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], TOLD | os.environ)  # noqa: S606  no shell


def be_brief() -> Redactor:
    """For a command that looks and ends; of what is logged on the way it shows errors only, without secrets
    that the redactor knows.

    What it loads is no garbage, and looking for some takes a quarter of its time, much of that at the very end.
    """
    import logging  # noqa: PLC0415  only these commands need it

    from almagent.redaction import Redactor  # noqa: PLC0415  likewise

    redactor = Redactor()
    os.environ.update(LIBRARIES | os.environ)
    gc.disable()
    atexit.register(gc.freeze)
    logging.getLogger().addHandler(logging.NullHandler())  # what libraries say is for a log

    def show_errors() -> None:
        from almagent import logs  # noqa: PLC0415  loads structlog

        logs.configure("error", "console", redactor)

    before_the_first_event(show_errors)
    return redactor

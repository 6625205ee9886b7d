"""stdin, stdout and stderr as a command may rely on them, whatever its caller has left of them."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class CannotWrite(Exception):
    """stdout does not take what is written. One line for the operator."""


class _Stdout(io.FileIO):
    """Its failures can be told from those of any other file."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:  # the reader has left: that is no trouble
            raise
        except OSError as exc:
            raise CannotWrite(f"cannot write to stdout: {exc.strerror}") from exc


def mend() -> None:
    """What is closed is opened the wrong way round: who needs it meets an error, and no file gets its number.

    stdout is buffered in any case, which Python leaves out where PYTHONUNBUFFERED is set.
    """
    directions = {"stdin": os.O_WRONLY, "stdout": os.O_RDONLY, "stderr": os.O_WRONLY}
    for name, direction in directions.items():
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            stream = os.fdopen(os.open(os.devnull, direction), mode, closefd=False)
            setattr(sys, name, stream)
    out = sys.stdout
    file = _Stdout(out.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(file), out.encoding, out.errors, line_buffering=out.isatty()
    )


def let_go_of_stdout() -> None:
    """What it has not taken is lost; another try at exit would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

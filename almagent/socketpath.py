"""Where the agent's unix socket is, and how to name it to the kernel, which takes 107 bytes at most."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOCKET = "almagent.sock"


@contextmanager
def short_name(path: Path) -> Iterator[str]:
    """A name for `path` that is short however deep its directory is. Raises OSError: no such directory."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)

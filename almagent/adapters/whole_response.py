"""An HTTP answer as the standard library reads it, but never one whose head was cut."""

from __future__ import annotations

import http.client
from io import BufferedReader
from typing import Any


class WholeResponse(http.client.HTTPResponse):
    """The library takes a head for whole where the connection ends: of a cut answer it makes an empty one."""

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        buffered: Any = self.fp
        self.fp = _WholeLines(buffered.detach())


class _WholeLines(BufferedReader):
    def readline(self, size: int | None = -1) -> bytes:
        """Raises IncompleteRead."""
        line = super().readline(size)
        if not line.endswith(b"\n") and len(line) != size:
            raise http.client.IncompleteRead(line)
        return line

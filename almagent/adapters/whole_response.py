"""An HTTP answer as the standard library reads it, but never one that was cut, or without end."""

from __future__ import annotations

import http.client
from io import BufferedReader
from typing import Any


class WholeResponse(http.client.HTTPResponse):
    """The library takes a head for whole where the connection ends, drops what follows a line that is no header, and
    takes less than the announced length for the body when it is asked for a part: of a cut answer it makes an empty one.
    """

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        buffered: Any = self.fp
        self.fp = _WholeLines(buffered.detach())

    def begin(self) -> None:
        """Raises HTTPException."""
        super().begin()
        unknown_length = (
            self.length is None and not self.chunked and "content-length" in self.headers
        )
        if unknown_length or self.headers.defects:
            raise http.client.HTTPException("the head of the answer is not valid")

    def body(self, most: int) -> bytes:
        """At most `most` bytes of it; never more is asked for, whatever length is announced. Raises HTTPException."""
        found = self.read(most)
        if self.length and len(found) < most:
            raise http.client.IncompleteRead(found, self.length)
        return found

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]  # the library's own
        if size < 0:
            raise ValueError("the size of a chunk is negative")
        return size


class _WholeLines(BufferedReader):
    def readline(self, size: int | None = -1) -> bytes:
        """Raises IncompleteRead."""
        line = super().readline(size)
        if not line.endswith(b"\n") and len(line) != size:
            raise http.client.IncompleteRead(line)
        return line

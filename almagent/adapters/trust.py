"""Whom TLS trusts: those the system trusts, found without reading them all.

Its bundle of some 140 certificates takes 27 ms and 1.3 MB to read. By default OpenSSL looks into a directory as
well, where a certificate is found by its subject's hash. Only that is used, until a peer cannot be reached:
whatever seems to be the reason, the bundle is read then, and what was to be asked is asked once more.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")  # names that openssl-rehash(1) makes

T = TypeVar("T")


class Trust:
    def __init__(self, *certificates: str | Path) -> None:
        """`certificates`: files of those that are trusted besides. Raises OSError."""
        directory = ssl.get_default_verify_paths().capath
        self.whole = not _is_hashed(directory)
        self.context = ssl.create_default_context(capath=None if self.whole else directory)
        for path in certificates:
            self.context.load_verify_locations(cafile=path)

    def make_whole(self) -> None:
        if not self.whole:
            self.whole = True
            self.context.load_default_certs()


async def ask(
    question: Callable[[], Awaitable[T]], trust: Trust | None, not_connected: type[Exception]
) -> T:
    """What `question` answers. It is asked again only when it was not connected at first, as that error tells.

    Of a peer with several addresses the last one's error is told, or none in time: an untrusted certificate
    may be behind any failure.
    """
    if trust is None or trust.whole:
        return await question()
    try:
        return await question()
    except not_connected:
        trust.make_whole()
    except BaseException:  # the caller's deadline among them
        trust.make_whole()
        raise
    return await question()


def _is_hashed(directory: str | None) -> bool:
    if directory is None:
        return False
    with suppress(OSError), os.scandir(directory) as entries:
        return any(HASHED.fullmatch(entry.name) for entry in entries)
    return False

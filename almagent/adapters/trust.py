"""Whom TLS trusts: those the system trusts, found without reading them all.

Its bundle of some 140 certificates takes 27 ms and 1.3 MB to read. By default OpenSSL looks into a directory as
well, where a certificate is found by its subject's hash. Only that is used, until a peer is not trusted by it:
then the bundle is read, too, and what was to be asked is asked once more.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Awaitable, Callable
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

    def read_bundle(self) -> None:
        self.whole = True
        self.context.load_default_certs()


async def ask(question: Callable[[], Awaitable[T]], trust: Trust | None) -> T:
    """`question` is asked again when the peer was not trusted: nothing of the first has reached it."""
    try:
        return await question()
    except ssl.SSLCertVerificationError:
        if trust is None or trust.whole:
            raise
    trust.read_bundle()
    return await question()


def _is_hashed(directory: str | None) -> bool:
    if directory is None:
        return False
    with os.scandir(directory) as entries:
        return any(HASHED.fullmatch(entry.name) for entry in entries)

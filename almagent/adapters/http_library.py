"""aiohttp, loaded without the trust store of the system; this comes before any other part of it.

When loaded it reads that store twice, 50 ms and 2 MB, which plain HTTP has no use for. Here its own TLS
contexts trust nobody, and who speaks https brings a context of its own.
"""

from __future__ import annotations

import ssl

ssl.SSLContext.set_default_verify_paths = lambda _: None  # type: ignore[method-assign, assignment]

import aiohttp  # noqa: E402  only now

del ssl.SSLContext.set_default_verify_paths  # the inherited one is back

__all__ = ["aiohttp"]

"""Images with a web server that behaves as the environment tells it: see server.pl beside this file.

It is written in Perl because perl-base is on every Debian and Ubuntu, and fast enough for a load.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from tests.peers.images import Images

HEALTHCHECK = "HEALTHCHECK --interval=1s --timeout=2s --retries=2 CMD test -f /tmp/healthy"


def app(images: Images, *changes: str) -> str:
    return images.make('CMD ["/usr/bin/perl", "/server.pl"]', *changes, files=files())


def healthy_app(images: Images) -> str:
    return app(images, HEALTHCHECK)


@cache
def files() -> dict[str, str | bytes]:
    """Perl with the libraries it needs; the server uses none of its modules."""
    perl = shutil.which("perl", path="/usr/bin:/bin")
    assert perl is not None, "perl-base is not installed"
    linked = subprocess.run(["ldd", perl], check=True, capture_output=True, text=True).stdout
    libraries = re.findall(r"(/\S+)", linked)
    files: dict[str, str | bytes] = {path: Path(path).read_bytes() for path in libraries}
    files["/usr/bin/perl"] = Path(perl).read_bytes()
    files["/server.pl"] = Path(__file__).with_name("server.pl").read_text()
    return files

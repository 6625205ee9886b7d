"""The agent of 2019 on the same host. Cron starts it each minute, and it serves the same ports."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

PROGRAM = "alm-agent"  # in its cron lines
SETTINGS = "/opt/mobingi/etc/alm-agent.cfg"
SHUTDOWN = "/etc/init.d/stop-alm-agent.sh"  # on AWS; it stops every container of the host
CONTAINERS = frozenset({"/active", "/standby"})
CRONTABS = (
    "var/spool/cron/crontabs/root",
    "var/spool/cron/root",
    "etc/crontab",
    "etc/cron.d",
)


def crontabs(root: Path = Path("/")) -> list[Path]:
    """Those that start it."""
    return [file for place in CRONTABS for file in _files(root / place) if _starts_it(file)]


def _files(place: Path) -> list[Path]:
    return sorted(place.iterdir()) if place.is_dir() else [place]


def _starts_it(file: Path) -> bool:
    with suppress(OSError):  # not there, or not ours to read
        lines = file.read_text(errors="replace").splitlines()
        return any(PROGRAM in line and not line.lstrip().startswith("#") for line in lines)
    return False

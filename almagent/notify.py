"""What the service manager is told (sd_notify(3)): one datagram a message, no library.

Started by hand there is no service manager and nobody is told. Nothing here raises: an agent whose
manager does not listen is still of use, and a manager that misses the watchdog acts on its own.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from almagent.journal import logger

log = logger()


class ServiceManager:
    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = _socket_address(environ.get("NOTIFY_SOCKET", ""))
        self._watchdog_timeout = _watchdog_timeout(environ)

    @property
    def watchdog_interval(self) -> float | None:
        """Seconds between two calls of `watchdog`: half of what is allowed; None: nobody waits for them."""
        return self._watchdog_timeout and self._watchdog_timeout / 2

    def ready(self) -> None:
        """The start, or the reload that `reloading` has announced, is complete."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Settings are being read again; `ready` has to follow."""
        self._send("RELOADING=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`: what the agent does now."""
        self._send("STATUS=" + " ".join(text.split()))

    def watchdog(self) -> None:
        """Every loop makes progress. The first one missing for WatchdogSec= is a restart."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            with socket.socket(socket.AF_UNIX, kind) as channel:
                channel.sendto(message.encode(), self._address)
        except OSError as exc:
            log.warning("service_manager.unreachable", reason=exc.strerror, message=message)


def _socket_address(name: str) -> str:
    """An address that starts with @ is in the abstract namespace, written with a leading NUL."""
    return "\0" + name[1:] if name.startswith("@") else name


def _watchdog_timeout(environ: Mapping[str, str]) -> float | None:
    """Seconds, None when off or meant for another process (a child inherits the variables)."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdigit() and int(microseconds) else None

"""What the bridge of the agent's network must allow besides the rules: written to /proc and /sys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from almagent.ports import Unavailable

_CONF = Path("/proc/sys/net/ipv4/conf")
_NET = Path("/sys/class/net")


def may_change() -> bool:
    """Whether these settings are writable at all (a sandbox may have made /proc/sys read-only)."""
    try:
        with (_CONF / "default/route_localnet").open("r+"):
            return True
    except OSError:
        return False


def exists(bridge: str) -> bool:
    return (_CONF / bridge).exists()


def routes_loopback(bridge: str) -> bool:
    """Whether packets from 127.0.0.0/8 may leave through the bridge; False if there is no bridge.

    Raises Unavailable.
    """
    with _translated(f"read route_localnet of {bridge}"), suppress(FileNotFoundError):
        return _setting(bridge).read_text().strip() == "1"
    return False


def route_loopback(bridge: str) -> None:
    """Allow it. Only safe behind the guard rule: it opens 127.0.0.1 of the host to the containers.

    Raises Unavailable.
    """
    if not routes_loopback(bridge):
        with _translated(f"set route_localnet of {bridge}"):
            _setting(bridge).write_text("1")


def restore_loopback(bridge: str) -> None:
    """Back to what a new interface gets: the bridge is the agent's own, nobody else sets it up.

    Raises Unavailable.
    """
    if exists(bridge):
        with _translated(f"reset route_localnet of {bridge}"):
            _setting(bridge).write_text(_setting("default").read_text())


def allow_hairpin(bridge: str) -> None:
    """A container may then call its own service by the host's address, also where bridged packets
    pass the host's rules (bridge-nf-call-iptables).

    Only for the containers that run now: a new start is a new bridge port. Raises Unavailable.
    """
    with _translated(f"list the ports of {bridge}"):
        modes = list((_NET / bridge / "brif").glob("*/hairpin_mode"))
    for mode in modes:
        with suppress(OSError):  # the container has just ended
            mode.write_text("1")


def _setting(interface: str) -> Path:
    return _CONF / interface / "route_localnet"


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """The system's errors in our words; `what` completes "cannot ...". Raises Unavailable."""
    try:
        yield
    except OSError as exc:
        raise Unavailable(f"cannot {what}: {exc.strerror}") from exc

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping

import pytest

from almagent.notify import ServiceManager


@pytest.fixture(params=["file", "abstract"])
def manager(request, tmp_path) -> Iterator[tuple[socket.socket, str]]:
    """The service manager's end of the socket, and how the environment names it."""
    name = str(tmp_path / "notify") if request.param == "file" else f"@{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as theirs:
        theirs.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        theirs.settimeout(5)
        yield theirs, name


@pytest.mark.parametrize(
    ("say", "heard"),
    [
        (ServiceManager.ready, b"READY=1"),
        (ServiceManager.reloading, b"RELOADING=1"),
        (ServiceManager.stopping, b"STOPPING=1"),
        (ServiceManager.watchdog, b"WATCHDOG=1"),
        (lambda manager: manager.status("serving Web01"), b"STATUS=serving Web01"),
        (lambda manager: manager.status("two\nlines\tof\xfc"), "STATUS=two lines of\xfc".encode()),
    ],
    ids=["ready", "reloading", "stopping", "watchdog", "status", "status is one line"],
)
def test_each_message_is_one_datagram(
    manager: tuple[socket.socket, str], say: Callable[[ServiceManager], None], heard: bytes
):
    theirs, name = manager
    say(ServiceManager({"NOTIFY_SOCKET": name}))
    assert theirs.recv(4096) == heard


def test_without_a_manager_nobody_is_told():
    ServiceManager({}).ready()


def test_a_manager_that_is_gone_does_not_end_the_agent(tmp_path):
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


def test_a_manager_that_does_not_listen_does_not_stop_the_agent(manager: tuple[socket.socket, str]):
    _, name = manager
    ours = ServiceManager({"NOTIFY_SOCKET": name})
    for _ in range(2000):  # more than its queue takes
        ours.watchdog()


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
    ids=["off", "for everybody", "for this process", "for another process", "zero", "not a number"],
)
def test_the_watchdog_is_fed_twice_in_its_time(environ: Mapping[str, str], interval: float | None):
    assert ServiceManager(environ).watchdog_interval == interval

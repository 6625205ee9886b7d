"""What a service manager hears from the real daemon, over a real notification socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.peers.agent import Agent
from tests.peers.api import ScriptedApi


class Manager:
    """Its end of the socket: all messages, in order."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(self.address)
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def _read(self) -> None:
        self.heard.append(self._socket.recv(4096).decode())

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    @property
    def status(self) -> str:
        """What `systemctl status` would show."""
        told = [m for m in self.heard if m.startswith("STATUS=")]
        return told[-1].removeprefix("STATUS=") if told else ""

    def count(self, message: str) -> int:
        return self.heard.count(message)


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


async def test_a_whole_life(agent: Agent, api: ScriptedApi, manager: Manager):
    api.document = {}
    env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1000000"}
    await agent.start(env=env)
    await agent.until(lambda: manager.count("WATCHDOG=1") >= 3, "the watchdog is fed")
    assert manager.heard[0] == "READY=1"
    assert agent.logged("agent.failed") == []
    served = "STATUS=uptodate: nothing is defined to run"
    await agent.until(lambda: served in manager.heard, "the status is told")
    assert manager.count(served) == 1

    assert agent.process is not None
    os.kill(agent.process.pid, signal.SIGHUP)
    await agent.until(lambda: manager.count("READY=1") == 2, "ready again")
    said = [m for m in manager.heard if m in {"READY=1", "RELOADING=1", "STOPPING=1"}]
    assert said == ["READY=1", "RELOADING=1", "READY=1"]
    assert await agent.end() == 0
    await agent.until(lambda: "STOPPING=1" in manager.heard, "stopping")


async def test_a_reload_with_broken_settings_changes_nothing_and_is_told_until_they_are_mended(
    agent: Agent, api: ScriptedApi, manager: Manager
):
    api.document = {}
    await agent.start(env={"NOTIFY_SOCKET": manager.address})
    await agent.until(lambda: manager.count("READY=1") == 1, "ready")
    good = agent.config.read_text()
    agent.config.write_text("nonsense")
    assert agent.process is not None
    os.kill(agent.process.pid, signal.SIGHUP)
    await agent.until_told("error")
    assert agent.last_error().startswith(
        f"cannot use the settings as they are now: {agent.config}:"
    )
    assert agent.last_error().endswith("; the former ones stay in force")
    assert agent.logged("settings.refused")[0]["level"] == "error"
    await agent.until(
        lambda: manager.status.startswith("error: cannot use the settings"), "the status is told"
    )
    assert (agent.words().count("starting"), manager.count("READY=1")) == (1, 1)

    agent.config.write_text(good)
    os.kill(agent.process.pid, signal.SIGHUP)
    await agent.until(lambda: manager.count("READY=1") == 2, "ready again")
    await agent.until(lambda: manager.status.startswith("uptodate"), "mended")
    assert await agent.end() == 0

"""The real agent as a child process, with a scripted API and a real registry beside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

from almagent.wiring import table_name
from tests.peers.api import AGENT_STATUS, CONTAINER_STATUS, STATUSES, ScriptedApi
from tests.peers.netns import HERE

SECRET = "canary-client-secret"
PATIENCE = 20.0  # seconds; a deployment takes less than one on an idle machine

SETTINGS: Mapping[str, Mapping[str, object]] = {
    "api": {"poll_interval": 1, "start_splay": 0, "timeout": 5, "client_secret": SECRET},
    "cloud": {"provider": "none"},
    "deploy": {
        "ready_timeout": 10,
        "drain_timeout": 5,
        "stop_timeout": 3,
        "bake_time": 5,
        "keep_releases": 5,
    },
    "docker": {"min_free_bytes": 1},
    "log": {"level": "debug", "format": "json"},
}


@dataclass
class Agent:
    """One agent: its directories, its API, its process. Statuses are (word, message or container id)."""

    directory: Path
    api: ScriptedApi
    stack_id: str
    engine: docker.APIClient
    settings: dict[str, dict[str, object]] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    started: list[asyncio.subprocess.Process] = field(default_factory=list)
    namespace: Path = HERE  # the network namespace it runs in
    flag: str = "Web01"

    @property
    def config(self) -> Path:
        return self.directory / "agent.toml"

    @property
    def log_file(self) -> Path:
        return self.directory / "agent.log"

    def configure(self, **groups: Mapping[str, object]) -> None:
        for name, values in groups.items():
            self.settings.setdefault(name, {}).update(values)
        merged = {
            name: {**SETTINGS.get(name, {}), **self.settings.get(name, {})}
            for name in {*SETTINGS, *self.settings}
        }
        merged["api"] = {"url": self.api.url, **merged["api"]}
        top = {
            "stack_id": self.stack_id,
            "flag": self.flag,
            "user_id": "user-1",
            "state_dir": str(self.directory / "state"),
            "runtime_dir": str(self.directory / "run"),
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in top.items()]
        for name, values in merged.items():
            lines += [f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in values.items())]
        self.config.write_text("\n".join(lines) + "\n")
        self.config.chmod(0o600)

    async def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        if not self.config.exists():
            self.configure()
        with self.log_file.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *("nsenter", f"--net={self.namespace}"),
                *(sys.executable, "-m", "almagent", "run", "--config", str(self.config)),
                *arguments,
                env={**os.environ, **(env or {})},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.started.append(self.process)

    async def end(self, number: int = signal.SIGTERM, patience: float = 10.0) -> int:
        """The exit code; negative: the signal that ended it."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(patience):
            return await self.process.wait()

    async def clean_up(self) -> None:
        for process in self.started:
            if process.returncode is None:
                process.kill()
                await process.wait()
        while containers := self.containers():
            for container in containers:
                with suppress(docker.errors.APIError):  # the agent was about to remove it itself
                    self.engine.remove_container(container["Id"], force=True, v=True)
        for network in self.engine.networks(filters=self.label):
            with suppress(docker.errors.NotFound):  # likewise
                self.engine.remove_network(network["Id"])
        await self._remove_table()

    @contextmanager
    def small_disk(self, megabytes: int) -> Iterator[Path]:
        """STATE_DIR is a file system of that size."""
        state = self.directory / "state"
        state.mkdir(mode=0o700)
        options = f"size={megabytes}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", state], check=True)
        yield state
        subprocess.run(["umount", "--lazy", state], check=True)

    async def _remove_table(self) -> None:
        command = ("nft", "delete", "table", "ip", table_name(self.stack_id, self.flag))
        devnull = asyncio.subprocess.DEVNULL
        child = await asyncio.create_subprocess_exec(*command, stderr=devnull)
        await child.wait()

    # --- what can be seen from outside ---

    @property
    def label(self) -> dict[str, str]:
        return {"label": f"almagent.stack={self.stack_id}"}

    def containers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.engine.containers(all=True, filters=self.label)
        return found

    def running(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.engine.containers(filters=self.label)
        return found

    def statuses(self) -> list[tuple[str, str]]:
        return [
            (body["status"], body.get("container_id", body.get("message", "")))
            for body in (request.json for request in self.api.asked(*STATUSES))
        ]

    def words(self, container: str | None = None) -> list[str]:
        """Status words of one container; None: the agent's own."""
        path = CONTAINER_STATUS if container else AGENT_STATUS
        bodies = [request.json for request in self.api.asked(path)]
        return [b["status"] for b in bodies if container in (None, b.get("container_id"))]

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_file.read_text().splitlines()]

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.log() if entry["event"] == event]

    async def until(
        self, condition: Callable[[], object], what: str, patience: float = PATIENCE
    ) -> float:
        """Seconds until `condition` held."""
        began = time.monotonic()
        while not condition():
            waited = time.monotonic() - began
            if waited > patience:
                tail = self.log_file.read_text()[-3000:] if self.log_file.exists() else ""
                raise AssertionError(f"{what}: not within {patience} s\n{self.statuses()}\n{tail}")
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def until_told(self, word: str, times: int = 1, patience: float = PATIENCE) -> None:
        def told() -> bool:
            return [status for status, _ in self.statuses()].count(word) >= times

        await self.until(told, f"{times} x {word}", patience)

    async def until_active(self, revisions_before: int, patience: float = PATIENCE) -> None:
        await self.until_told("uptodate", revisions_before + 1, patience)

    def last_error(self) -> str:
        errors = [message for word, message in self.statuses() if word == "error"]
        return errors[-1] if errors else ""


async def fetch(port: int, path: str = "/", host: str = "127.0.0.1", patience: float = 10.0) -> str:
    """The body of one GET over a connection of its own. Raises OSError or ValueError."""
    async with asyncio.timeout(patience):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n")[0]:
                raise ValueError(head.decode(errors="replace"))
            return body.decode()
        finally:
            writer.close()


async def answers(port: int, text: str) -> bool:
    try:
        return text in await fetch(port, patience=2)
    except (OSError, ValueError, TimeoutError):
        return False

"""The agent as a child process: `almagent run` with a settings file of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

STOP_WITHIN = 8.0  # seconds from SIGTERM to the exit; the agent allows itself less
PACKAGES = Path(__file__).parents[2]  # where this very almagent is imported from

# What would let settings, the service manager or a proxy of this machine into the demo.
FOREIGN = ("ALMAGENT_", "CREDENTIALS_", "NOTIFY_", "WATCHDOG_")
PROXY = "_proxy"

SETTINGS = """\
stack_id = {stack_id}
flag = {flag}
user_id = "demo"
state_dir = {state_dir}
runtime_dir = {runtime_dir}

[api]
url = {api_url}
client_secret = {client_secret}
poll_interval = 0.5
start_splay = 0

[cloud]
provider = "aws"
endpoint = {cloud_url}
poll_interval = 1

[docker]
min_free_bytes = 0

[deploy]
strategy = "switch"
ready_timeout = 30
drain_timeout = 4
stop_timeout = 3
bake_time = 4

[log]
format = "console"
"""  # short times, so that nobody has to wait; all else as it is by default


@dataclass
class Agent:
    """`home` is a directory for its settings, its state and its log."""

    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    process: Process | None = None

    @property
    def config(self) -> Path:
        return self.home / "agent.toml"

    @property
    def log(self) -> Path:
        return self.home / "agent.log"

    @property
    def state_dir(self) -> Path:
        return self.home / "state"

    def configure(self, **values: str) -> None:
        """Write the settings file: `values` are those that differ from demo to demo."""
        places = {"state_dir": str(self.state_dir), "runtime_dir": str(self.home / "run")}
        quoted = {name: json.dumps(value) for name, value in (places | values).items()}
        self.config.touch(mode=0o600)
        self.config.write_text(SETTINGS.format(**quoted), encoding="utf-8")

    async def start(self) -> int:
        """The process id. It is in a session of its own: Ctrl-C at the terminal is for the demo."""
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "almagent", "run", "--config", str(self.config)),
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(self.environment),
                start_new_session=True,
            )
        return self.process.pid

    async def stop(self) -> None:
        """End it, if it runs: in good order, or else by force."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_WITHIN):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def how_it_ended(self) -> str:
        """In words; empty while it runs."""
        code = self.process.returncode if self.process else None
        if code is None:
            return ""
        return f"killed by signal {-code}" if code < 0 else f"with exit code {code}"

    def last_words(self, lines: int = 20) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(FOREIGN) and not name.lower().endswith(PROXY)
    }
    paths = [str(PACKAGES), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "NO_COLOR": "1", **more}

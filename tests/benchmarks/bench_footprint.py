"""What the idle daemon costs with everything on, and where its memory goes.

    python -m tests.benchmarks.bench_footprint [SECONDS]

The daemon serves a container, polls the API each 30 s and a metadata service each 5 s, watches events and
routes, and has its socket open. Prints one JSON object; exits 1 when a limit is exceeded. Processor time is
that of the measured seconds, as if an hour. `imports_kib`: what each module adds in a fresh interpreter
when they are loaded in this order. Compiled bytecode is kept, as an installed package has it.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from almagent.lean import TOLD
from tests.peers import leaks
from tests.peers.agent import Agent
from tests.peers.api import ScriptedApi
from tests.peers.apps import app
from tests.peers.docker_engine import connect
from tests.peers.images import Images
from tests.peers.metadata import AwsPeer
from tests.peers.registry import registry
from tests.scenario.releases import document

RSS_LIMIT = 55 * 1024  # KiB
CPU_LIMIT = 4.0  # seconds an hour
SETTLE = 15.0  # seconds after the deployment: bake time and the first sweep are over
MODULES = (
    *("asyncio", "structlog", "pydantic", "almagent.settings", "almagent.core.document"),
    *("prometheus_client", "aiohttp", "almagent.parts", "aiohttp.web_server", "almagent.daemon"),
    *("almagent.adapters.metadata.aws", "almagent.adapters.docker_engine.client"),
)
WEIGH = """
import importlib, json, sys
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4
sizes = {"python": resident()}
for name in sys.argv[1:]:
    before = resident()
    importlib.import_module(name)
    sizes[name] = resident() - before
print(json.dumps(sizes))
"""


def cpu(pid: int) -> float:
    """Seconds, the children that have ended among them."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> dict[str, int]:
    """KiB, as the kernel has it."""
    wanted = ("VmRSS", "RssAnon", "RssFile", "VmHWM")
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = (line.split() for line in lines)
    return {row[0].rstrip(":"): int(row[1]) for row in found if row[0].rstrip(":") in wanted}


def imports() -> dict[str, int]:
    command = [sys.executable, "-c", WEIGH, *MODULES]
    env = TOLD | os.environ  # as the daemon has it
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    sizes: dict[str, int] = json.loads(done.stdout)
    return sizes


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        number: int = sock.getsockname()[1]
        return number


async def measure(seconds: float, directory: Path) -> dict[str, object]:
    engine, session = connect(), secrets.token_hex(4)
    os.environ[leaks.MARK] = session
    images = Images(engine, session)
    async with ScriptedApi() as api, AwsPeer() as cloud:
        api.etag = '"v1"'
        agent = Agent(directory, api, f"test-{session}", engine)
        agent.configure(
            api={"poll_interval": 30},
            cloud={"provider": "aws", "endpoint": cloud.url, "poll_interval": 5},
        )
        try:
            with registry(engine, directory / "registry") as running:
                api.document = document(running.push(app(images), "idle:1"), free_port())
                await agent.start()
                await agent.until_told("uptodate")
            assert agent.process is not None
            pid = agent.process.pid
            await asyncio.sleep(SETTLE)
            before = cpu(pid)
            await asyncio.sleep(seconds)
            used = cpu(pid) - before
            return {
                "memory_kib": memory(pid),
                "cpu_seconds_an_hour": round(used * 3600 / seconds, 2),
                "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
                "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
            }
        finally:
            await agent.clean_up()
            leaks.clear(session)
            engine.close()


def main(seconds: float) -> int:
    with tempfile.TemporaryDirectory() as name:
        os.environ["PYTHONPYCACHEPREFIX"] = f"{name}/bytecode"
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        imports()  # compiles
        (Path(name) / "registry").mkdir()
        result = asyncio.run(measure(seconds, Path(name)))
        result["imports_kib"] = imports()
    print(json.dumps(result, indent=1))
    resident = result["memory_kib"]["VmRSS"]  # type: ignore[index]
    return int(resident > RSS_LIMIT or result["cpu_seconds_an_hour"] > CPU_LIMIT)  # type: ignore[operator]


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if sys.argv[1:] else 120.0))

"""What the idle daemon costs with everything on, and where its memory goes.

    python -m tests.benchmarks.bench_footprint [SECONDS]

The daemon serves a container, polls the API over TLS each 30 s and a metadata service each 5 s, watches events
and routes, and has its socket open. It is measured twice: `idle` after a release of an image alone, then
`idle_after_git` after a release with code from git, of which a part stays behind in memory. Prints one JSON
object; exits 1 when a limit is exceeded in either. Processor time is that of the measured seconds, as if an
hour; `floor_ms` is that of `python3 -c pass` right after each, since the pace of a machine drifts. `imports_kib`:
what each module adds in a fresh interpreter when they are loaded in this order.
Bytecode is kept as the package has it.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

from almagent.lean import TOLD
from tests.benchmarks.bench_commands import children_time
from tests.benchmarks.bench_commands import measure as measure_command
from tests.benchmarks.serving import certificate_in, serving_agent
from tests.peers.agent import Agent
from tests.peers.gitserver import GitHTTPS, Repository, serving
from tests.peers.metadata import AwsPeer

RSS_LIMIT = 55 * 1024  # KiB
CPU_LIMIT = 4.0  # seconds an hour
CPUCLOCK_SCHED = 2  # include/linux/posix-timers.h
SETTLE = 15.0  # seconds after the deployment: bake time and the first sweep are over
FLOORS = 11  # runs, of which the median counts
FILES = 2_000  # of the release with code, with links and attributes among them
MODULES = (
    *("asyncio", "structlog", "almagent.settings", "almagent.core.document"),
    *("prometheus_client", "aiohttp", "almagent.parts", "aiohttp.web_server", "almagent.daemon"),
    *("almagent.adapters.metadata.aws", "almagent.adapters.docker_engine.client"),
    *("almagent.adapters.source", "almagent.commands.run"),
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
    """Seconds of all its threads, and of the children that have ended.

    By the process's own clock, whose number clock_getcpuclockid(3) tells: /proc rounds to 10 ms, twice, which
    is 0.6 s an hour for two minutes.
    """
    return time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED) + children_time(pid)


def memory(pid: int) -> dict[str, int]:
    """KiB, as the kernel has it."""
    wanted = ("VmRSS", "RssAnon", "RssFile", "VmHWM")
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = (line.split() for line in lines)
    return {row[0].rstrip(":"): int(row[1]) for row in found if row[0].rstrip(":") in wanted}


def nothing() -> float:
    return measure_command([sys.executable, "-c", "pass"], dict(os.environ)).own


def imports() -> dict[str, int]:
    command = [sys.executable, "-c", WEIGH, *MODULES]
    env = TOLD | os.environ  # as the daemon has it
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    sizes: dict[str, int] = json.loads(done.stdout)
    return sizes


def compile_as_packaged(into: Path) -> None:
    """As packaging/build.sh: without docstrings, but for the standard library, which is the host's."""
    os.environ["PYTHONPYCACHEPREFIX"] = str(into)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    imports()
    os.environ["PYTHONOPTIMIZE"] = "2"
    imports()
    del os.environ["PYTHONOPTIMIZE"]
    host = into / sysconfig.get_path("stdlib").lstrip("/")
    for bytecode in into.rglob("*.opt-2.pyc"):
        if not bytecode.is_relative_to(host) or "site-packages" in bytecode.parts:
            bytecode.rename(bytecode.with_name(bytecode.name.replace(".opt-2", "")))


async def measure(seconds: float, directory: Path) -> dict[str, Any]:
    certificate = certificate_in(directory)
    async with AwsPeer() as aws:
        cloud = {"provider": "aws", "endpoint": aws.url, "poll_interval": 5}
        async with serving_agent(directory, certificate, cloud=cloud) as agent:
            idle = await observe(agent, seconds)
            with serving(GitHTTPS(directory, certificate)) as server:
                await release_code(agent, server.url(application(directory)))
            return {"idle": idle, "idle_after_git": await observe(agent, seconds)}


def application(directory: Path) -> Repository:
    """As large as one with its dependencies."""
    repository = Repository(directory / "app.git")
    files = {f"d{n % 40}/s{n % 7}/f{n}.txt": f"{n}\n" * 100 for n in range(FILES)}
    repository.commit({**files, ".gitattributes": "*.bin filter=lfs"})
    repository.commit({"latest": "d1"}, modes={"latest": "120000"})
    return repository


async def release_code(agent: Agent, url: str) -> None:
    api = agent.api
    wanted: Any = api.document
    api.document = {**wanted, "gitRepo": url}
    api.etag = '"v2"'
    await agent.until_told("uptodate", 2, patience=90)  # it asks each 30 s


async def observe(agent: Agent, seconds: float) -> dict[str, Any]:
    assert agent.process is not None
    pid = agent.process.pid
    await asyncio.sleep(SETTLE)
    before = cpu(pid)
    await asyncio.sleep(seconds)
    used = cpu(pid) - before
    return {
        "memory_kib": memory(pid),
        "cpu_seconds_an_hour": round(used * 3600 / seconds, 2),
        "floor_ms": round(statistics.median(nothing() for _ in range(FLOORS)), 1),
        "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
    }


def exceeds(observed: dict[str, Any]) -> bool:
    resident: int = observed["memory_kib"]["VmRSS"]
    return resident > RSS_LIMIT or observed["cpu_seconds_an_hour"] > CPU_LIMIT


def main(seconds: float) -> int:
    with tempfile.TemporaryDirectory() as name:
        compile_as_packaged(Path(name) / "bytecode")
        result = asyncio.run(measure(seconds, Path(name)))
        result["imports_kib"] = imports()
    print(json.dumps(result, indent=1))
    return int(any(map(exceeds, (result["idle"], result["idle_after_git"]))))


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if sys.argv[1:] else 120.0))

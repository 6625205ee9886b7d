"""How fast the commands answer, as a ratio to `python3 -c pass` on the same machine at the same time.

    python -m tests.benchmarks.bench_commands [ROUNDS [COMMAND...]]

Run as root; needs a Docker engine. An agent serves, and the API is asked over TLS. COMMAND: another almagent
than this environment's, such as an installed package's. Prints one JSON object; exits 1 when a limit is exceeded. What counts is a
command's own time: processor time, which neither a busy machine nor a slow neighbour changes. That of the
programs it asks (git, ssh, nft) is theirs. Compiled bytecode is kept, as an installed package has it.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.serving import certificate_in, serving_agent

LIMITS = {"version": 100, "status": 300, "plan": 300, "doctor": 300}  # milliseconds of own time


@dataclass(frozen=True)
class Figure:
    own: float  # milliseconds of processor time
    wall: float  # milliseconds


def measure(command: Sequence[str], env: dict[str, str]) -> Figure:
    began = time.monotonic()
    devnull = subprocess.DEVNULL
    child = subprocess.Popen(command, env=env, stdin=devnull, stdout=devnull, stderr=devnull)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    children = children_time(child.pid)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}")
    own = usage.ru_utime + usage.ru_stime - children
    return Figure(own * 1000, (time.monotonic() - began) * 1000)


def children_time(pid: int) -> float:
    """Seconds of processor time of the programs that it has run; rounded down to ticks: proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def commands(almagent: Sequence[str], settings: Path) -> dict[str, list[str]]:
    config = ["--config", str(settings)]
    return {
        "nothing": [sys.executable, "-c", "pass"],
        "version": [*almagent, "--version"],
        **{name: [*almagent, name, *config] for name in ("status", "plan", "doctor")},
    }


async def compare(rounds: int, almagent: Sequence[str], directory: Path) -> dict[str, list[Figure]]:
    async with serving_agent(directory, certificate_in(directory)) as agent:
        todo = commands(almagent, agent.config)
        figures: dict[str, list[Figure]] = {what: [] for what in todo}
        for number in range(rounds + 1):
            for what, command in todo.items():
                figure = await asyncio.to_thread(measure, command, dict(os.environ))
                if number > 0:  # the first one compiles
                    figures[what].append(figure)
        return figures


def main(rounds: int, almagent: Sequence[str]) -> int:
    with tempfile.TemporaryDirectory() as name:
        os.environ["PYTHONPYCACHEPREFIX"] = f"{name}/bytecode"
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        figures = asyncio.run(compare(rounds, almagent, Path(name)))
    own = {what: statistics.median(f.own for f in found) for what, found in figures.items()}
    wall = {what: statistics.median(f.wall for f in found) for what, found in figures.items()}
    result = {
        what: {
            "own_ms": round(own[what]),
            "wall_ms": round(wall[what]),
            "ratio": round(own[what] / own["nothing"], 1),
        }
        for what in own
    }
    print(json.dumps(result))
    return int(any(own[what] > limit for what, limit in LIMITS.items()))


if __name__ == "__main__":
    given = sys.argv[2:] or [str(Path(sys.executable).with_name("almagent"))]
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 7, given))

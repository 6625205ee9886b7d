"""How fast the commands answer, as a ratio to `python3 -c pass` on the same machine at the same time.

    python -m tests.benchmarks.bench_commands [ROUNDS]

Prints one JSON object; exits 1 when a limit is exceeded. What counts is a command's own time: processor
time, which neither a busy machine nor a slow neighbour changes. That of the programs it asks (git, ssh, nft)
is theirs. Nothing runs behind `status`: that is its longest way. Compiled bytecode is kept, as an installed
package has it.
"""

from __future__ import annotations

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

from tests.peers.agent import SECRET

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
    _, _, usage = os.wait4(child.pid, 0)
    child.returncode = 0
    own = usage.ru_utime + usage.ru_stime - children
    return Figure(own * 1000, (time.monotonic() - began) * 1000)


def children_time(pid: int) -> float:
    """Seconds of processor time of the programs that it has run; rounded down to ticks: proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def commands(directory: Path) -> dict[str, list[str]]:
    settings, document = directory / "agent.toml", directory / "document.json"
    settings.write_text(
        f'stack_id = "bench"\nflag = "Web01"\nstate_dir = "{directory}/state"\n'
        f'runtime_dir = "{directory}/run"\n[cloud]\nprovider = "none"\n'
        f'[api]\nurl = "http://127.0.0.1:1"\nclient_secret = "{SECRET}"\n'
    )
    settings.chmod(0o600)
    document.write_text('{"image": "registry.example.com/app:1"}')
    almagent, config = [sys.executable, "-m", "almagent"], ["--config", str(settings)]
    return {
        "nothing": [sys.executable, "-c", "pass"],
        "version": [*almagent, "--version"],
        "status": [*almagent, "status", *config],
        "plan": [*almagent, "plan", "--document", str(document), *config],
        "doctor": [*almagent, "doctor", *config],
    }


def main(rounds: int) -> int:
    with tempfile.TemporaryDirectory() as name:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": f"{name}/bytecode"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        todo = commands(Path(name))
        for command in todo.values():  # compiles
            measure(command, environment)
        figures: dict[str, list[Figure]] = {what: [] for what in todo}
        for _ in range(rounds):
            for what, command in todo.items():
                figures[what].append(measure(command, environment))
    own = {what: statistics.median(f.own for f in found) for what, found in figures.items()}
    wall = {what: statistics.median(f.wall for f in found) for what, found in figures.items()}
    result = {
        what: {
            "own_ms": round(own[what]),
            "wall_ms": round(wall[what]),
            "ratio": round(own[what] / own["nothing"], 1),
        }
        for what in todo
    }
    print(json.dumps(result))
    return int(any(own[what] > limit for what, limit in LIMITS.items()))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 7))

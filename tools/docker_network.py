# ruff: noqa: INP001  a part of the script with-host, not of a package
"""What an engine does to the network of its host when it starts, and how to undo it when it has ended."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from typing import Any

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
BRIDGE = "docker0"
VARIANTS = ("iptables", "ip6tables")
TABLES = ("filter", "nat")


def state() -> dict[str, Any]:
    """Taken before the engine starts."""
    return {
        "bridge": BRIDGE in {name for _, name in socket.if_nameindex()},
        "forwarding": FORWARDING.read_text(),
        "rules": {f"{tool} {table}": saved(tool, table) for tool in VARIANTS for table in TABLES},
    }


def restore(before: dict[str, Any]) -> None:
    """Remove what is Docker's and was not there; leave what others have added meanwhile."""
    if not before["bridge"]:
        subprocess.call(["ip", "link", "delete", BRIDGE], stderr=subprocess.DEVNULL)
    FORWARDING.write_text(before["forwarding"])
    for key, old in before["rules"].items():
        tool, table = key.split()
        if "DOCKER" not in old:
            script = undo(table, old, saved(tool, table))
            subprocess.run([f"{tool}-restore", "--noflush"], input=script, text=True, check=False)


def saved(tool: str, table: str) -> str:
    answer = subprocess.run(
        [f"{tool}-save", "-t", table], capture_output=True, text=True, check=False
    )
    return answer.stdout


def undo(table: str, old: str, new: str) -> str:
    """An iptables-restore script from `old` and `new`, both as iptables-save prints them."""
    chains = re.findall(r"^:(DOCKER\S*)", new, re.MULTILINE)
    rules = [line for line in new.splitlines() if line.startswith("-A")]
    added = [line for line in rules if "DOCKER" in line.split(" ", 2)[2] or BRIDGE in line]
    policies = re.findall(r"^:(FORWARD \S+)", old, re.MULTILINE) or ["FORWARD ACCEPT"]
    return "\n".join(
        [
            f"*{table}",
            *(f":{policy} [0:0]" for policy in policies if table == "filter"),
            *(f"-D{line[2:]}" for line in added if not line.startswith("-A DOCKER")),
            *(f"-F {chain}" for chain in chains),
            *(f"-X {chain}" for chain in chains),
            "COMMIT\n",
        ]
    )

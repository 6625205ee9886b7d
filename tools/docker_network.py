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
        "tables": sorted(tables()),
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
    for name in sorted(tables() - set(before["tables"])):
        if is_left_behind(name):
            subprocess.call(["nft", "delete", "table", *name.split()])


def tables() -> set[str]:
    """As nftables has them: `ip nat`. iptables-legacy keeps its own elsewhere, and for good."""
    answer = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    return {line.split(" ", 1)[1] for line in answer.stdout.splitlines()}


def saved(tool: str, table: str) -> str:
    answer = subprocess.run(
        [f"{tool}-save", "-t", table], capture_output=True, text=True, check=False
    )
    return answer.stdout


def is_left_behind(name: str) -> bool:
    """An agent's that was killed, for its engine has just ended; or one of iptables with nothing in it."""
    family, table = name.split()
    tool = {"ip": "iptables", "ip6": "ip6tables"}.get(family, "")
    if not tool or table not in TABLES:
        return table.startswith("almagent_")
    lines = [line for line in saved(tool, table).splitlines() if line.startswith((":", "-A"))]
    return all(re.match(r":\S+ ACCEPT", line) for line in lines)


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

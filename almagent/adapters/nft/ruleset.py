"""The one table that is ours, as text: what is loaded into the kernel is what it must list again.

Rendering and listing share one form, so "complete and unaltered" is a comparison of two texts. Written
against the output of `nft --numeric-priority list table`; a dry run proves at start that the installed
nft prints it the same way.

Each port is a rule of the chain `routes` (and one of `doors`), not an element of a map: the kernel swaps all
rules of a chain at one instant, while a map lookup could miss an element that is replaced at that very
moment (kernels before 6.17).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from almagent.adapters.nft.timeouts import Policy
from almagent.core.model import Target

_RULE = r'^\s*tcp dport (\d+) ct timeout set "patience" dnat to '
_ROUTE = re.compile(_RULE + r"([0-9.]+)$", re.MULTILINE)
_DOOR = re.compile(_RULE + r"([0-9.]+:\d+)$", re.MULTILINE)
_DURATION = re.compile(r"(?<= : )[0-9dhms]+")
_PART = re.compile(r"(\d+)([dhms]?)")
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1, "": 1}

# Numbers are hook priorities: -300 raw, -100 dstnat, 100 srcnat. Ours run ten earlier than Docker's.
# docker0, br-* and alm* are how bridges of Docker networks are called: by Docker, and by agents like this one.
# They are rules of their own because older nft takes no wildcard in a set. Ours is taken out before them.
_TABLE = """\
table ip {table} {{{flags}
	ct timeout patience {{
		protocol tcp
		l3proto ip
		policy = {{ {policy} }}
	}}

	chain guard {{
		type filter hook prerouting priority -300; policy accept;
		iifname != "lo" ip daddr 127.0.0.0/8 drop
	}}

	chain routes {{
{routes}
	}}

	chain doors {{
{doors}
	}}

	chain prerouting {{
		type nat hook prerouting priority -110; policy accept;
		iifname "{bridge}" fib daddr type local jump routes
		iifname "docker0" fib daddr type local jump doors
		iifname "br-*" fib daddr type local jump doors
		iifname "alm*" fib daddr type local jump doors
		fib daddr type local jump routes
	}}

	chain output {{
		type nat hook output priority -110; policy accept;
		fib daddr type local jump routes
	}}

	chain postrouting {{
		type nat hook postrouting priority 90; policy accept;
		ct status dnat oifname "{bridge}" ip saddr 127.0.0.0/8 masquerade
		ct status dnat iifname "{bridge}" oifname "{bridge}" masquerade
	}}
}}
"""


def render(
    table: str,
    bridge: str,
    routes: Mapping[int, Target],
    policy: Policy,
    *,
    dormant: bool = False,
) -> str:
    """The whole table. `dormant`: the kernel checks and keeps it, but no packet sees it."""
    return _TABLE.format(
        table=table,
        bridge=bridge,
        policy=", ".join(f"{state} : {seconds}" for state, seconds in policy.items()),
        flags="\n\tflags dormant\n" if dormant else "",
        **{chain: "\n".join(rules) for chain, rules in _chains(routes).items()},
    )


def read(listing: str, table: str, bridge: str, policy: Policy) -> dict[int, Target] | None:
    """The routes in a listing of our table; None if anything in it is missing, altered or added."""
    doors = dict(_DOOR.findall(listing))
    routes = {int(p): Target(address, doors.get(p, "")) for p, address in _ROUTE.findall(listing)}
    return routes if same(listing, render(table, bridge, routes, policy)) else None


def same(listing: str, other: str) -> bool:
    """Whether two listings say the same, in whichever of nft's spellings."""
    return _lines(listing) == _lines(other)


def replace_table(table: str, text: str) -> str:
    """One transaction that puts `text` in the place of whatever the table holds."""
    return f"{remove_table(table)}{text}"


def replace_routes(table: str, routes: Mapping[int, Target]) -> str:
    """One transaction that changes the routes of an intact table and nothing else."""
    script = ""
    for chain, rules in _chains(routes).items():
        script += f"flush chain ip {table} {chain}\n"
        script += "".join(f"add rule ip {table} {chain} {rule}\n" for rule in rules)
    return script


def remove_table(table: str) -> str:
    """One transaction after which there is no such table; adding it first makes that no error."""
    return f"add table ip {table}\ndelete table ip {table}\n"


def _chains(routes: Mapping[int, Target]) -> dict[str, list[str]]:
    """The rules of the chains that a switch changes, by the chain's name."""
    by_port = sorted(routes.items())
    return {
        "routes": [_rule(port, target.address) for port, target in by_port],
        "doors": [_rule(port, target.door) for port, target in by_port if target.door],
    }


def _rule(port: int, destination: str) -> str:
    return f'tcp dport {port} ct timeout set "patience" dnat to {destination}'


def _lines(listing: str) -> list[str]:
    """Without blank lines and remarks."""
    stripped = (line.partition("#")[0].strip() for line in listing.splitlines())
    return [_plain(line) for line in stripped if line]


def _plain(line: str) -> str:
    """A timeout policy as nft printed it before 1.1, and where /etc/protocols is there."""
    if line.startswith("policy = {"):
        return _DURATION.sub(lambda found: str(_seconds(found[0])), line)
    return "protocol tcp" if line == "protocol 6" else line


def _seconds(duration: str) -> int:
    return sum(int(number) * _SECONDS[unit] for number, unit in _PART.findall(duration))

"""How long connection tracking remembers a connection of ours, in each state: the host's times, but for three.

A connection that was reset is forgotten at once (`close`). The kernel keeps it for 10 s, and leads a new connection
from the same source port to the old container all that time, though that may be gone meanwhile.

An attempt that the container has not answered is forgotten after 1 s (`syn_sent`), the time after which clients try
again; the kernel keeps it for 120 s and each try renews it. A container on this host answers in microseconds, or it
has a full queue; the next try is to go to whoever has the port by then.

A connection that both ends have closed is forgotten after 1 s (`time_wait`), in which a lost last packet is sent
again; the kernel keeps it for 120 s. A new SYN takes its place, and that is the trouble: Docker lists the entries of
a container that has ended, then deletes them one by one by the client's address and port, and so cuts a living
connection to the new container whose client has used its port again in between.

nft states a time for every state, so the other ones are read from the host's settings: a policy of ours is
not to undo what an operator has tuned. Names and defaults: nft's `ct timeout`, the kernel's nf_conntrack_tcp_timeout_*.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

Policy = Mapping[str, int]  # state -> seconds, those that differ from nft's own, in nft's order

_SETTINGS = Path("/proc/sys/net/netfilter")
_DEFAULTS = {  # seconds, in the order in which nft prints them
    "syn_sent": 120,
    "syn_recv": 60,
    "established": 432000,
    "fin_wait": 120,
    "close_wait": 60,
    "last_ack": 30,
    "time_wait": 120,
    "close": 10,
    "retrans": 300,
    "unack": 300,
}
_OURS = {"syn_sent": 1, "time_wait": 1, "close": 0}  # seconds
_KERNEL_NAMES = {"retrans": "max_retrans", "unack": "unacknowledged"}  # where they are not nft's


def policy() -> Policy:
    """What is to be in force now."""
    wanted = {state: _OURS.get(state, _of_host(state)) for state in _DEFAULTS}
    return {state: seconds for state, seconds in wanted.items() if seconds != _DEFAULTS[state]}


def _of_host(state: str) -> int:
    setting = _SETTINGS / f"nf_conntrack_tcp_timeout_{_KERNEL_NAMES.get(state, state)}"
    try:
        return int(setting.read_text())
    except (OSError, ValueError):  # not tracking yet: it will begin with its defaults
        return _DEFAULTS[state]

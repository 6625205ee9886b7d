"""One agent for each runtime directory; a second one is to leave before it has loaded what an agent needs."""

from __future__ import annotations

from pathlib import Path

from almagent.adapters.store import Lock


def lock_in(runtime_dir: Path) -> Lock:
    return Lock(runtime_dir / "almagent.lock")


def demand_to_be_alone(runtime_dir: Path) -> None:
    """Raises Refused naming the other agent, Unavailable when the lock cannot be opened."""
    lock = lock_in(runtime_dir)
    lock.acquire()
    lock.release()

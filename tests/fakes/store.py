"""The Store port in memory: passes the same contract suite as the file."""

from __future__ import annotations

import json


class Disk:
    """What outlives a store. `refuses`: it is full, or may only be read."""

    def __init__(self) -> None:
        self.content = "{}"
        self.refuses = False


class MemoryStore:
    def __init__(self, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()

    def load(self) -> dict[str, object]:
        state = json.loads(self.disk.content)
        return state if isinstance(state, dict) else {}

    def save(self, state: dict[str, object]) -> bool:
        content = json.dumps(state)
        if self.disk.refuses:
            return False
        self.disk.content = content
        return True

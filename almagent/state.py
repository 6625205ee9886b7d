"""What survives a restart, as one document in one file: memory, outbox, notices, the specs that run.

A part that cannot be read back is dropped and the rest is kept: the worst that follows is a retry.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

from almagent.core.frozen import frozen
from almagent.core.memory import Memory
from almagent.core.model import GitSource, Secret, Spec
from almagent.core.notices import NoticeBook
from almagent.core.outbox import Outbox
from almagent.core.plain import plain, revived
from almagent.journal import logger
from almagent.ports import Store

log = logger()

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@frozen
class Place:
    """Where this host is, as it was last found."""

    cloud: str = ""  # its name, "" before one was found
    instance_id: str = ""  # "" when it is not known to be that of this boot: disks are cloned


class Role(NamedTuple):
    """For whom the host works."""

    stack_id: str
    flag: str


class State:
    """Parts are read and changed by their owners; `save` writes them all, when anything has changed."""

    def __init__(
        self, store: Store, boot_id: str, role: Role, *, drain_on_rebalance: bool = False
    ) -> None:
        """What was remembered in another role is void, but for what concerns the host."""
        self._store = store
        self._boot_id = boot_id
        self._role = role
        raw = store.load()
        if role_in(raw) not in {None, role}:
            raw = {name: raw[name] for name in ("boot_id", "notices", "place") if name in raw}
        self.memory = self._load_memory(raw)
        self.outbox = Outbox.from_dict(_part(raw, "outbox"))
        self.notices = NoticeBook.restore(
            _part(raw, "notices"), time.time(), drain_on_rebalance=drain_on_rebalance
        )
        self.specs = _load_specs(_part(raw, "specs"))
        self.place = self._load_place(raw)
        self._saved: dict[str, object] = raw

    def save(self) -> bool:
        """False: the disk refused; everything goes on from memory and the next call tries again."""
        state = self._compose()
        if state == self._saved:
            return True
        if not self._store.save(state):
            return False
        self._saved = state
        return True

    def keep_specs(self, *specs: Spec | None) -> None:
        """Keep only the specs of the releases that may have to be started again."""
        releases = (
            self.memory.release,
            self.memory.previous_release,
            self.memory.candidate_release,
        )
        needed = {r.revision for r in releases if r}
        known = {s.revision: s for s in (*self.specs.values(), *(s for s in specs if s))}
        self.specs = {revision: s for revision, s in known.items() if revision in needed}

    def _compose(self) -> dict[str, object]:
        return {
            "boot_id": self._boot_id,
            "role": list(self._role),
            "memory": plain(self.memory),
            "outbox": self.outbox.to_dict(),
            "notices": self.notices.as_dict(),
            "specs": {revision: _dump_spec(spec) for revision, spec in self.specs.items()},
            "place": plain(self.place),
        }

    def _load_place(self, raw: dict[str, object]) -> Place:
        match _part(raw, "place"):
            case {"cloud": str(cloud), "instance_id": str(instance_id)}:
                same_boot = raw.get("boot_id") == self._boot_id
                return Place(cloud, instance_id if same_boot else "")
        return Place()

    def _load_memory(self, raw: dict[str, object]) -> Memory:
        try:
            memory = revived(Memory, _part(raw, "memory"))
        except ValueError as exc:
            log.warning("state.memory_dropped", reason=str(exc))
            return Memory()
        return memory if raw.get("boot_id") == self._boot_id else _after_reboot(memory)


def role_in(raw: dict[str, object]) -> Role | None:
    """The one that a state was written in, None: not noted."""
    match raw.get("role"):
        case [str(stack_id), str(flag)]:
            return Role(stack_id, flag)
    return None


def boot_id() -> str:
    """Tells one boot of this host from the next."""
    return BOOT_ID.read_text().strip()


def _after_reboot(memory: Memory) -> Memory:
    """Times of another boot mean nothing; a release that was switched back stays back."""
    failure = memory.failure
    held = failure if failure is not None and failure.retry_at is None else None
    return Memory(
        active=memory.active, release=memory.release, previous=memory.previous, failure=held
    )


def _part(raw: dict[str, object], name: str) -> dict[str, Any]:
    part = raw.get(name)
    return part if isinstance(part, dict) else {}


def _dump_spec(spec: Spec) -> dict[str, object]:
    """No git key and no login: the file holds what a container needs, not how it was fetched."""
    return {
        "image": spec.image,
        "environment": {name: value.reveal() for name, value in spec.environment.items()},
        "source": [spec.source.url, spec.source.reference] if spec.source else None,
        "code_dir": spec.code_dir,
        "ports": spec.ports if spec.ports is None else list(spec.ports),
        "updated": spec.updated,
    }


def _load_specs(raw: dict[str, Any]) -> dict[str, Spec]:
    specs = {}
    for revision, fields in raw.items():
        try:
            specs[revision] = _load_spec(revision, fields)
        except (KeyError, TypeError, ValueError, AttributeError):
            log.warning("state.spec_dropped", revision=revision[:8])
    return specs


def _load_spec(revision: str, fields: dict[str, Any]) -> Spec:
    source, ports = fields["source"], fields["ports"]
    return Spec(
        revision=revision,
        image=fields["image"],
        environment={name: Secret(text) for name, text in fields["environment"].items()},
        source=GitSource(*source) if source else None,
        code_dir=fields["code_dir"],
        ports=None if ports is None else tuple(ports),
        updated=fields["updated"],
    )

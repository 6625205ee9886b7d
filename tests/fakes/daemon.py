"""A container engine in memory: what `MemoryEngine` talks to, and what tests drive."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from almagent.core.model import Container, Health, Release, Spec, State
from almagent.ports import Image, PortError, Refused, Unavailable

TERM, KILL = 143, 137  # exit codes of a process that a signal ended
UP = {State.RUNNING, State.PAUSED}
FIRST_DOOR = 32768  # Docker deals out ports from here on


@dataclass(frozen=True)
class Program:
    """What is in an image, as far as it matters here."""

    image: Image
    exits: int | None = None  # it ends at once with this code; None: it runs
    heeds_stop: bool = True  # it ends when it is asked to
    health: Health | None = None
    status_word: str | None = None
    hooks: Mapping[str, str] = field(default_factory=dict)  # path -> what it prints


@dataclass
class Record:
    """One container: what is fixed, and what changes."""

    shown: Container
    owner: tuple[str, str]
    program: Program
    environment: dict[str, str]
    started: float = 0.0
    ended: float = 0.0
    logs: str = ""


class Daemon:
    """What outlives an agent: containers, images, the registry, and who wants to hear of changes.

    `clock` gives seconds; a test may hand in its own.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.away = False
        self.records: dict[str, Record] = {}
        self.registry: dict[str, Program] = {}  # reference -> what a pull brings
        self.faults: dict[str, PortError] = {}  # reference -> why its pull fails
        self.local: dict[str, Program] = {}  # image id -> image on the host
        self.pulled: list[str] = []  # image ids, the latest last
        self._numbers = itertools.count(1)
        self._listeners: dict[asyncio.Queue[str], tuple[str, str]] = {}

    # --- what a test does to the world ---

    def publish(
        self,
        reference: str,
        *,
        ports: tuple[int, ...] = (),
        labels: Mapping[str, str] | None = None,
        exits: int | None = None,
        heeds_stop: bool = True,
        health: Health | None = None,
        status_word: str | None = None,
        hooks: Mapping[str, str] | None = None,
    ) -> str:
        """A new image in the registry under `reference`; its id."""
        number = next(self._numbers)
        image = Image(
            f"sha256:{number:064x}", f"sha256:{number + (1 << 128):064x}", ports, labels or {}
        )
        self.registry[reference] = Program(
            image, exits, heeds_stop, health, status_word, dict(hooks or {})
        )
        return image.id

    def crash(self, container_id: str, code: int = KILL, *, oom: bool = False) -> None:
        """Its process ends by itself; Docker restarts it where the policy says so."""
        record = self.records[container_id]
        self._end(record, code, oom=oom)
        if record.shown.restarts:
            self._run(record)

    def set_health(self, container_id: str, health: Health) -> None:
        self._change(self.records[container_id], health=health)

    def set_status_word(self, container_id: str, word: str) -> None:
        record = self.records[container_id]
        record.shown = replace(record.shown, status_word=word)  # a file: no event

    def vanish(self, container_id: str) -> None:
        """Somebody else removes it."""
        self._tell(self.records.pop(container_id))

    def go_away(self) -> None:
        self.away = True

    def come_back(self) -> None:
        self.away = False
        for queue in self._listeners:
            queue.put_nowait("")

    # --- what engines do with it ---

    def check(self) -> None:
        if self.away:
            raise Unavailable("cannot reach the Docker engine: it is away")

    def get(self, container_id: str) -> Record:
        self.check()
        if container_id not in self.records:
            raise Refused(f"cannot find container {container_id[:12]}: no such container")
        return self.records[container_id]

    def pull(self, reference: str) -> Image:
        self.check()
        if reference in self.faults:
            raise self.faults[reference]
        program = self.registry.get(reference)
        if program is None:
            raise Refused(f"cannot pull {reference}: no such image")
        if program.image.id not in self.local:
            self.pulled.append(program.image.id)
        self.local[program.image.id] = program
        return program.image

    def add(
        self,
        owner: tuple[str, str],
        spec: Spec,
        release: Release,
        values: dict[str, str],
        *,
        publish: bool,
    ) -> str:
        self.check()
        if release.image_id not in self.local:
            raise Refused(f"cannot create a container: no such image: {release.image_id}")
        number = next(self._numbers)
        names = {record.shown.name for record in self.records.values()}
        base = f"almagent-{owner[1]}-{release.revision[:8]}"
        ways = itertools.chain([base], (f"{base}-{n}" for n in itertools.count(2)))
        shown = Container(
            id=f"{number:064x}",
            name=next(name for name in ways if name not in names),
            revision=release.revision,
            image_id=release.image_id,
            state=State.CREATED,
            created=float(number),
            ports=release.ports,
            published=publish and bool(release.ports),
            address=self._free_address(),
            image=release.image,
            image_digest=release.image_digest,
            commit=release.commit,
        )
        record = Record(shown, owner, self.local[release.image_id], values)
        self.records[shown.id] = record
        self._tell(record)
        return shown.id

    def start(self, container_id: str) -> None:
        record = self.get(container_id)
        if record.shown.state not in UP:
            self._claim_ports(record)
            self._run(record)

    def set_restart(self, container_id: str, *, always: bool) -> None:
        self._change(self.get(container_id), restarts=always)

    def signal(self, container_id: str, code: int) -> None:
        """SIGTERM or SIGKILL, after which Docker does not restart it."""
        self.check()
        record = self.records.get(container_id)
        if record is None or record.shown.state not in UP:
            return
        if code == KILL or record.program.heeds_stop:
            self._end(record, code)

    def remove(self, container_id: str) -> None:
        self.check()
        if container_id in self.records:
            self.vanish(container_id)

    def now(self, record: Record) -> Container:
        end = self.clock() if record.shown.state in UP else record.ended
        return replace(record.shown, up_for=max(0.0, end - record.started))

    def collect(self, keep: Collection[str], spare: int) -> None:
        self.check()
        used = {record.shown.image_id for record in self.records.values()}
        old = [one for one in reversed(self.pulled) if one not in keep and one not in used]
        for image_id in old[spare:]:
            self.pulled.remove(image_id)
            self.local.pop(image_id, None)

    async def changes(self, owner: tuple[str, str]) -> AsyncIterator[str]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._listeners[queue] = owner
        try:
            if not self.away:
                yield ""
            while True:
                yield await queue.get()
        finally:
            del self._listeners[queue]

    def _run(self, record: Record) -> None:
        number = next(self._numbers)
        record.started = self.clock()
        program = record.program
        self._change(
            record,
            state=State.RUNNING,
            pid=number,
            incarnation=f"start {number}",
            doors=self._doors(record),
            exit_code=None,
            oom_killed=False,
            health=program.health,
            status_word=record.shown.status_word or program.status_word,
        )
        if program.exits is not None:
            self._end(record, program.exits)

    def _end(self, record: Record, code: int, *, oom: bool = False) -> None:
        record.ended = self.clock()
        self._change(record, state=State.EXITED, pid=0, doors={}, exit_code=code, oom_killed=oom)

    def _change(self, record: Record, **changes: object) -> None:
        record.shown = replace(record.shown, **changes)  # type: ignore[arg-type]
        self._tell(record)

    def _tell(self, record: Record) -> None:
        for queue, owner in self._listeners.items():
            if owner == record.owner and not self.away:
                queue.put_nowait(record.shown.id)

    def _free_address(self) -> str:
        used = {record.shown.address for record in self.records.values()}
        return next(a for a in (f"172.30.0.{n}" for n in range(2, 255)) if a not in used)

    def _doors(self, record: Record) -> dict[int, str]:
        """Others at every start."""
        ports = () if record.shown.published else record.shown.ports
        return {port: f"172.30.0.1:{FIRST_DOOR + next(self._numbers)}" for port in ports}

    def _claim_ports(self, record: Record) -> None:
        if not record.shown.published:
            return
        taken = {
            port
            for other in self.records.values()
            if other is not record and other.shown.published and other.shown.state in UP
            for port in other.shown.ports
        }
        if both := taken & set(record.shown.ports):
            raise Refused(f"cannot start: port {min(both)} is already allocated")

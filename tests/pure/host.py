"""Docker, the kernel's routes and the programs in the containers, in memory, with a clock of their own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from almagent.core.model import Container, Health, Release, Spec, State, Target

DOCKER_PAUSE, DOCKER_PAUSE_MAX, DOCKER_STABLE = 0.1, 60.0, 10.0  # its restart policy's own backoff

UP = (State.RUNNING, State.PAUSED, State.RESTARTING)


class Refused(Exception):
    """Docker says no."""


@dataclass(frozen=True)
class App:
    """How the program in an image behaves. Times in seconds."""

    ports: tuple[int, ...] = (80,)
    shows: str = "ports"  # its readiness: health, word, ports or time
    ready_after: float | None = 1.0  # None: never
    dies_after: float | None = None  # by itself, after every start
    ends_after: float | None = 0.5  # from its stop signal; None: it ignores that
    requests_last: float = (
        0.0  # open connections end this long after the traffic has gone elsewhere
    )
    prepare_time: float = 2.0
    prepared: bool = True  # False: no such image
    created: bool = True  # False: Docker refuses to create it
    started: bool = True  # False: Docker refuses to start it


@dataclass
class Box:
    """A container as Docker and the kernel know it."""

    id: str
    revision: str
    app: App
    published: bool
    address: str
    created: float
    state: State = State.CREATED
    restarts: bool = False
    starts: int = 0
    started_at: float = 0.0
    ended_at: float = 0.0
    exit_code: int | None = None
    sick: bool = False
    term_at: float | None = None
    restart_at: float | None = None  # Docker will
    crashes: int = 0
    had_traffic_at: float = -math.inf

    def up_for(self, now: float) -> float:
        if not self.starts:
            return 0.0
        return (now if self.state is State.RUNNING else self.ended_at) - self.started_at

    def works(self, now: float) -> bool:
        """It answers requests."""
        after = self.app.ready_after
        running = self.state is State.RUNNING and not self.sick
        return running and after is not None and self.up_for(now) >= after - 1e-9

    def connected(self, now: float) -> bool:
        return self.state is State.RUNNING and now < self.had_traffic_at + self.app.requests_last

    def run(self, now: float) -> None:
        self.state, self.starts, self.started_at = State.RUNNING, self.starts + 1, now
        self.sick, self.term_at, self.restart_at, self.exit_code = False, None, None, None

    def end(self, now: float, code: int, *, by_hand: bool) -> None:
        """Docker restarts what ends by itself; what somebody stopped stays stopped."""
        if self.state is not State.RESTARTING:
            self.ended_at = now
        self.exit_code = code
        if by_hand or not self.restarts:
            self.state, self.restart_at = State.EXITED, None
            return
        self.crashes = 0 if self.up_for(now) >= DOCKER_STABLE else self.crashes + 1
        delay = min(DOCKER_PAUSE_MAX, DOCKER_PAUSE * 2.0 ** min(self.crashes, 20))
        self.state, self.restart_at = State.RESTARTING, now + delay

    def next_event(self) -> float:
        times = [math.inf if self.restart_at is None else self.restart_at]
        if self.state is State.RUNNING and self.app.dies_after is not None:
            times.append(self.started_at + self.app.dies_after)
        if self.state is State.RUNNING and self.term_at is not None:
            times.append(self.term_at + or_never(self.app.ends_after))
        return min(times)

    def happen(self, now: float) -> None:
        if self.state is State.RESTARTING:
            self.run(now)
        else:
            self.end(now, 0 if self.term_at is not None else 1, by_hand=self.term_at is not None)

    def seen(self, now: float) -> Container:
        running = self.state is State.RUNNING
        return Container(
            id=self.id,
            name=f"almagent-web-{self.revision}",
            revision=self.revision,
            image_id=f"sha256:{self.revision}",
            state=self.state,
            created=self.created,
            ports=self.app.ports,
            published=self.published,
            address=self.address,
            doors=self.doors,
            pid=100 if running else 0,
            restarts=self.restarts,
            incarnation=str(self.starts) if self.starts else "",
            up_for=self.up_for(now),
            exit_code=self.exit_code,
            health=self._health(now) if self.app.shows == "health" and self.starts else None,
            status_word=self._word(now) if self.app.shows == "word" and self.starts else None,
        )

    @property
    def doors(self) -> dict[int, str]:
        """Docker deals the ephemeral ports anew at every start."""
        if self.published or self.state is not State.RUNNING:
            return {}
        return {
            port: f"127.0.0.1:{40_000 + 100 * self.starts + port % 100}" for port in self.app.ports
        }

    def _health(self, now: float) -> Health:
        if self.sick:
            return Health.UNHEALTHY
        return Health.HEALTHY if self.works(now) else Health.STARTING

    def _word(self, now: float) -> str:
        return "complete" if self.works(now) else "installing"


def or_never(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds


class Host:
    """Goes on while the agent is away."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.boxes: dict[str, Box] = {}
        self.routes: dict[int, Target] = {}
        self.foreign: dict[int, str] = {}  # port -> process
        self.apps: dict[str, App] = {}  # by revision: what containers made from now on hold
        self._ids = itertools.count(1)

    # --- what a person, a program or a fault does ---

    def reboot_engine(self) -> None:
        """Docker and all containers stop; those that it is to restart start again."""
        for box in self.boxes.values():
            if box.state in UP:
                box.end(self.now, 137, by_hand=True)
                if box.restarts:
                    box.run(self.now)

    def crash(self, box: Box) -> None:
        box.end(self.now, 1, by_hand=False)

    def docker_kill(self, box: Box) -> None:
        box.end(self.now, 137, by_hand=True)

    # --- what is asked about it ---

    def has_traffic(self, box: Box) -> bool:
        """New connections come to it. Routes are before Docker's own way to a published port."""
        if box.published and not self.routes:
            return box.state is State.RUNNING
        return box.address in {target.address for target in self.routes.values()}

    def serves(self, box: Box) -> bool:
        return self.has_traffic(box) and box.works(self.now)

    @property
    def reachable(self) -> bool:
        return any(self.serves(box) for box in self.boxes.values())

    # --- time ---

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while (at := self.next_event()) <= end:
            self._move(at)
            self.happen()
        self._move(end)

    def next_event(self) -> float:
        return min((box.next_event() for box in self.boxes.values()), default=math.inf)

    def happen(self) -> None:
        """Whatever is due."""
        for box in list(self.boxes.values()):
            if box.next_event() <= self.now:
                box.happen(self.now)

    def _move(self, at: float) -> None:
        self.now = max(self.now, at)
        self.note_traffic()

    def note_traffic(self) -> None:
        for box in self.boxes.values():
            if self.has_traffic(box):
                box.had_traffic_at = self.now

    # --- what Docker is told ---

    def create(self, release: Release, *, publish: bool) -> None:
        app = replace(self.apps[release.revision], ports=release.ports)
        if not app.created:
            raise Refused("cannot create the container: invalid value")
        number = next(self._ids)
        address = next(self._free_addresses({box.address for box in self.boxes.values()}))
        name = f"c{number:03}"
        self.boxes[name] = Box(name, release.revision, app, publish, address, float(number))

    def _free_addresses(self, taken: Collection[str]) -> Iterator[str]:
        return (ip for n in itertools.count(2) if (ip := f"172.30.0.{n}") not in taken)

    def start(self, box: Box) -> None:
        if box.state is State.PAUSED:
            box.state = State.RUNNING
        if box.state is State.RUNNING:
            return
        if not box.app.started or self._clashes(box):
            raise Refused("cannot start the container: port is already allocated")
        box.run(self.now)

    def _clashes(self, box: Box) -> bool:
        others = (b for b in self.boxes.values() if b is not box and b.published and b.state in UP)
        return box.published and any(set(b.app.ports) & set(box.app.ports) for b in others)

    def terminate(self, box: Box | None) -> None:
        if box is None or box.state not in UP:
            return
        box.restarts = False
        if box.state is State.RESTARTING:
            box.end(self.now, 1, by_hand=True)
        else:
            box.state = State.RUNNING
            box.term_at = self.now if box.term_at is None else box.term_at

    def kill(self, box: Box | None) -> None:
        if box is not None and box.state in UP:
            box.end(self.now, 137, by_hand=True)


def release_of(spec: Spec, app: App) -> Release:
    return Release(
        revision=spec.revision,
        image=spec.image,
        image_id=f"sha256:{spec.revision}",
        image_digest="",
        commit="",
        code_path=f"/releases/{spec.revision}",
        code_dir="/var/www/html",
        init_script="",
        ports=app.ports,
    )

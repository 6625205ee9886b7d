"""What the agent needs from the outside, and the errors it may get: one Protocol a neighbour.

Adapters translate a vendor's errors once, chain the original, and never let a secret into the text.
Every call ends: each adapter puts a deadline on what it waits for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from almagent.core.frozen import frozen
from almagent.core.model import (
    Container,
    GitSource,
    RegistryLogin,
    Release,
    Spec,
    Status,
    Target,
)


class PortError(Exception):
    """A neighbour could not do what was asked. The text is one line, names the thing, holds no secret."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = (
            retry_after  # seconds the neighbour asked us to wait, None: it did not say
        )


class Unavailable(PortError):
    """The neighbour itself is away, slow or overloaded: what runs is not to be judged by this."""


class Refused(PortError):
    """The neighbour answered: this cannot be done as asked (not found, not allowed, not valid)."""


Progress = Callable[[str, int, int], None]
"""Called with what is going on, units done and units in all (0: unknown). Cheap, never raises."""


def no_progress(_what: str, _done: int, _total: int) -> None:
    """For callers that show none."""


# --- the ALM API ---------------------------------------------------------------------------------


class ControlPlane(Protocol):
    async def fetch_document(self) -> bytes | None:
        """The config document of this agent's flag; None: unchanged since the last call (304).

        Raises Unavailable (no answer, 5xx, 429 with retry_after, an answer that is not JSON), Refused (4xx).
        """

    async def post(self, status: Status) -> None:
        """Hand over one status; returning means acknowledged (2xx).

        Raises Unavailable: try again later; Refused: a final 4xx, the same call will never succeed.
        """


# --- the container engine ------------------------------------------------------------------------


@frozen
class Image:
    id: str
    digest: str  # repository digest ("sha256:..."), "" if unknown
    ports: tuple[int, ...]  # TCP ports it EXPOSEs, sorted
    labels: Mapping[str, str]


@frozen
class Evidence:
    """Why a container ended, for the error that is reported."""

    exit_code: int | None
    oom_killed: bool
    log_tail: str  # last lines, bounded, control characters removed; not yet scrubbed of secrets


class Engine(Protocol):
    """Containers of this agent: those that carry its stack and flag labels, and no other."""

    async def observe(self) -> tuple[Container, ...]:
        """All containers of this agent, whatever their state, the oldest first. Raises Unavailable."""

    async def pull(
        self, image: str, login: RegistryLogin | None, progress: Progress = no_progress
    ) -> Image:
        """Pull; only a stream that ended well is a success. Cancelling ends the pull.

        Raises Refused (no such image, login refused, no space), Unavailable (registry or engine away).
        """

    async def create(self, spec: Spec, release: Release, *, publish: bool) -> str:
        """Create, not start; the full id. `publish`: on every host address (recreate), else on doors
        only, which opens Docker's forward path for the router.

        Nothing is left behind when it raises: Refused (a value Docker does not take), Unavailable.
        """

    async def start(self, container_id: str) -> None: ...

    async def set_restart(self, container_id: str, *, always: bool) -> None:
        """Whether Docker restarts it by itself."""

    async def terminate(self, container_id: str) -> None:
        """Docker is not to restart it; send its stop signal; do not wait for its end."""

    async def kill(self, container_id: str) -> None: ...

    async def remove(self, container_id: str) -> None:
        """Remove it, running or not; it is no error if it is gone already."""

    async def evidence(self, container_id: str) -> Evidence: ...

    async def run_hook(self, container_id: str, path: str, deadline: float) -> str:
        """Run `path` in the container if it exists there, at most `deadline` seconds; its output, bounded."""

    def changes(self) -> AsyncIterator[str]:
        """Yields the id of each of this agent's containers to which something happened, for ever.

        After a gap in the engine's event stream it yields "" (look at everything again).
        """

    async def collect(self, keep: Collection[str]) -> None:
        """Remove images that this agent pulled earlier and that are neither in `keep` (ids) nor in use."""


# --- code ----------------------------------------------------------------------------------------


@frozen
class Checkout:
    commit: str  # full
    path: Path  # the exported tree, without .git
    # mobingi-init.sh or mobingi-install.sh of the repository, made executable
    init_script: Path | None


class Source(Protocol):
    async def checkout(self, source: GitSource, progress: Progress = no_progress) -> Checkout:
        """Fetch into the bare mirror, resolve the reference exactly, export that one commit.

        The same commit is exported once. Cancelling ends every child process and leaves no half export.
        Raises Refused (no such repository or reference, login refused, changed host key, caps exceeded,
        no room on the disk), Unavailable (no answer in time).
        """

    async def collect(self, keep: Collection[str]) -> None:
        """Remove exports whose path is not in `keep`, but the most recent few."""


# --- traffic -------------------------------------------------------------------------------------


class Router(Protocol):
    """Who answers on the host's ports. Rules live in the kernel and survive this process."""

    async def routes(self) -> dict[int, Target]:
        """By port, as the kernel has it; {} if incomplete in any part. Raises Unavailable."""

    async def point(self, targets: Mapping[int, Target]) -> None:
        """These ports there, every other port closed, in one atomic step; open connections stay.

        `targets` empty: closed for new connections, open ones go on.
        """

    async def clear(self) -> None:
        """Remove everything that is ours."""

    async def probe(self, port: int, address: str) -> bool:
        """Whether a new connection to 127.0.0.1:`port` arrives at `address`. Raises Unavailable."""

    def changes(self) -> AsyncIterator[None]:
        """Yields when somebody may have changed the rules, for ever."""


class Sockets(Protocol):
    """Questions to the kernel about TCP sockets. Each raises Unavailable: it cannot be asked just now."""

    async def accepts(self, address: str, ports: Sequence[int], timeout: float) -> bool:
        """Whether every port accepts a connection within `timeout` seconds."""

    async def connections(self, pid: int, ports: Collection[int]) -> int:
        """Open connections to `ports` where the process with that pid lives; 0 if it is gone."""

    async def listeners(self, ports: Collection[int]) -> dict[int, str]:
        """Which of `ports` some process of this host listens on, and its name ("" if unknown)."""


# --- the cloud -----------------------------------------------------------------------------------


@frozen
class Notice:
    """Something the cloud says will happen to this instance."""

    key: str  # identity: the same notice has the same key although its time may move
    terminal: bool  # True: the instance goes away
    what: str  # one line for the status message: action and time
    deadline: float | None = None  # seconds since the epoch by the wall clock, None: not told


class Metadata(Protocol):
    name: str  # aws, gcp, ...
    longest_call: float  # seconds that one call of `notices` may take

    async def instance_id(self) -> str:
        """Raises Unavailable when this is not that cloud or it does not answer."""

    async def notices(self) -> tuple[Notice, ...]:
        """Those in force now. Raises Unavailable for anything that is not a clear answer."""


# --- what must survive ---------------------------------------------------------------------------


class Store(Protocol):
    """One small JSON-like document, replaced as a whole."""

    def load(self) -> dict[str, object]:
        """{} when there is none yet, or it was damaged (then it has been set aside)."""

    def save(self, state: dict[str, object]) -> bool:
        """Durable when True; False: the disk refused, keep going from memory and save again later."""

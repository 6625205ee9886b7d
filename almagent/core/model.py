"""The data every other module talks about: frozen, plain, without behaviour of its own.

Times are seconds of one clock that never jumps (`time.monotonic`, which on Linux all processes of one
boot share); nothing here is wall-clock time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import NamedTuple

from almagent.core.frozen import frozen


class Secret:
    """Text that cannot be printed by accident: only `reveal` gives it away."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)


# --- what should be ------------------------------------------------------------------------------


@frozen
class GitSource:
    """Where the code is. The URL holds no user name, password or token: they are beside it."""

    url: str
    reference: str = ""  # branch, tag, full or short commit; empty: the remote's HEAD
    username: Secret | None = None
    password: Secret | None = None
    private_key: Secret | None = None


@frozen
class RegistryLogin:
    username: str
    password: Secret


@frozen
class Spec:
    """A config document in our own words. `revision` is the content identity of what it deploys."""

    revision: (
        str  # hex; git keys and registry logins are not part of it: they are means, not content
    )
    image: str
    environment: Mapping[str, Secret] = field(default_factory=dict)
    source: GitSource | None = None
    code_dir: str | None = None
    ports: tuple[int, ...] | None = None  # None: the ports the image EXPOSEs
    updated: int | None = None
    registry: RegistryLogin | None = None
    ignored: tuple[str, ...] = ()  # fields that were understood but that this agent does not act on


@frozen
class Run:
    """Run this spec."""

    spec: Spec


@frozen
class Keep:
    """Nothing usable is known yet, or nothing is defined for the flag: keep what runs, start nothing."""


@frozen
class Leave:
    """End in good order: no new release, drain, stop and remove the containers."""

    reason: str
    done_by: float | None = None  # None: drain_timeout and stop_timeout bound it
    hook: str | None = None  # path in the container of a program to run before it is stopped


Desired = Run | Keep | Leave


# --- what is -------------------------------------------------------------------------------------


class State(StrEnum):
    """Docker's own words for a container's state."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


class Health(StrEnum):
    """Docker's own words for the verdict of an image's HEALTHCHECK."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@frozen
class Release:
    """A revision made ready to run: everything that had to be resolved or fetched."""

    revision: str
    image: str  # the reference that was asked for
    image_id: str  # "sha256:...": what the container is created from
    image_digest: str  # repository digest, "" where the registry gave none
    commit: str  # full git commit, "" without code
    code_path: str  # directory on this host that holds the exported commit, "" without code
    code_dir: str  # where it is mounted in the container
    init_script: str  # file on this host to mount as /tmp/init/init.sh, "" without one
    ports: tuple[int, ...]  # TCP, host port = container port


class Target(NamedTuple):
    """Where a port of the host leads."""

    address: str  # of the container
    door: str = ""  # "address:port" of the host where Docker's proxy leads to it too, "" if none


@frozen
class Container:
    """One container that carries this agent's labels, as Docker and the kernel tell it now."""

    id: str
    name: str
    revision: str
    image_id: str
    state: State
    created: (
        float  # order of creation: seconds since the epoch by the engine's clock, only compared
    )
    ports: tuple[int, ...] = ()
    published: bool = False  # its ports are published on every host address by Docker (recreate)
    address: str = ""  # on the agent's network; the fixed one it will have, while it does not run
    doors: Mapping[int, str] = field(default_factory=dict)  # port -> door; others at every start
    pid: int = 0  # of its first process, 0 while it does not run
    restarts: bool = False  # Docker restarts it by itself
    incarnation: str = ""  # changes at every start
    up_for: float = (
        0.0  # seconds it has run since its last start (how long it ran, once it has ended)
    )
    exit_code: int | None = None
    oom_killed: bool = False
    health: Health | None = None  # None: the image has no HEALTHCHECK
    status_word: str | None = None  # what it wrote to /var/log/container_status
    listening: bool | None = None  # every port accepts a connection; None: not asked
    connections: int | None = None  # open connections on its ports; None: not asked
    image: str = ""
    image_digest: str = ""
    commit: str = ""

    @property
    def targets(self) -> dict[int, Target]:
        """What the routes are while the traffic is its own."""
        return {port: Target(self.address, self.doors.get(port, "")) for port in self.ports}


@frozen
class Preparing:
    revision: str


@frozen
class Prepared:
    release: Release


@frozen
class PrepareFailed:
    revision: str
    message: str
    wait: float = 0.0  # seconds that the peer asked us to wait at least


Preparation = Preparing | Prepared | PrepareFailed


@frozen
class Observed:
    containers: tuple[Container, ...] = ()
    routes: Mapping[int, Target] | None = None  # by port; None: there is no router
    preparation: Preparation | None = None
    busy_ports: Mapping[int, str] = field(default_factory=dict)  # port -> the foreign process on it


# --- what is said --------------------------------------------------------------------------------


class AgentWord(StrEnum):
    STARTING = "starting"
    INSTALLING = "installing"
    UPTODATE = "uptodate"
    ERROR = "error"
    NOTICE = "notice"
    SPOT_TERMINATE = "spot_terminate"
    STOPPED = "stopped"


class ContainerWord(StrEnum):
    STARTING = "starting"
    UPDATING = "updating"
    RUNNING = "running"
    RESTARTING = "restarting"
    TERMINATED = "terminated"


@frozen
class AgentStatus:
    word: AgentWord
    message: str = ""


@frozen
class ContainerStatus:
    container_id: str
    word: str  # a ContainerWord, or what the image wrote to its status file
    own: bool = True  # False: the image's own word


Status = AgentStatus | ContainerStatus

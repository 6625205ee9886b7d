"""What the planner may decide: a closed set, one port call (or none) each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from almagent.core.model import Container, Release, Spec, Target


@dataclass(frozen=True, slots=True)
class Prepare:
    """Pull the image and fetch the code, beside everything else; replaces a preparation under way."""

    spec: Spec


@dataclass(frozen=True, slots=True)
class Abandon:
    """Give up the preparation under way."""


@dataclass(frozen=True, slots=True)
class Reject:
    """The release cannot be tried: remember the failure."""

    revision: str
    message: str
    wait: float = 0.0  # seconds, at least, until the next try


@dataclass(frozen=True, slots=True)
class Create:
    spec: Spec
    release: Release
    publish: bool


@dataclass(frozen=True, slots=True)
class Start:
    container: Container
    active: bool  # False: a candidate


@dataclass(frozen=True, slots=True)
class Watch:
    """Begin to judge a candidate that runs."""

    container: Container


@dataclass(frozen=True, slots=True)
class Discard:
    """The candidate failed: keep the evidence, remove it."""

    container: Container
    reason: str


@dataclass(frozen=True, slots=True)
class Switch:
    """All traffic to this container in one step; it is the active one from now on."""

    container: Container
    routed: bool  # False: Docker publishes its ports, there is no route to change
    drain_until: float  # for the one that was active


@dataclass(frozen=True, slots=True)
class Adopt:
    """Memory was lost: this container serves, so it is the active one."""

    container: Container


@dataclass(frozen=True, slots=True)
class Route:
    """Mend the routes: these ports there and nothing else."""

    targets: Mapping[int, Target]


@dataclass(frozen=True, slots=True)
class KeepRestarting:
    """From now on Docker restarts it by itself, also while this agent is away."""

    container: Container


@dataclass(frozen=True, slots=True)
class Revert:
    """The active release failed within its bake time: the previous one is the active one again."""

    container: Container
    to: Container
    reason: str
    drain_until: float  # for the one that failed


@dataclass(frozen=True, slots=True)
class Retire:
    """Let its open connections finish."""

    container: Container
    drain_until: float


@dataclass(frozen=True, slots=True)
class Terminate:
    container: Container


@dataclass(frozen=True, slots=True)
class Kill:
    container: Container


@dataclass(frozen=True, slots=True)
class Remove:
    container: Container


@dataclass(frozen=True, slots=True)
class RunHook:
    container: Container
    path: str
    limit: float  # seconds


@dataclass(frozen=True, slots=True)
class Collect:
    """Remove images and exports that nothing needs any more."""

    active: str
    images: tuple[str, ...]
    paths: tuple[str, ...]


Action = (
    Prepare
    | Abandon
    | Reject
    | Create
    | Start
    | Watch
    | Discard
    | Switch
    | Adopt
    | Route
    | KeepRestarting
    | Revert
    | Retire
    | Terminate
    | Kill
    | Remove
    | RunHook
    | Collect
)

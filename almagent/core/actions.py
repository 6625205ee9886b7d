"""What the planner may decide: a closed set, one port call (or none) each."""

from __future__ import annotations

from collections.abc import Mapping

from almagent.core.frozen import frozen
from almagent.core.model import Container, Release, Spec, Target


@frozen
class Prepare:
    """Pull the image and fetch the code, beside everything else; replaces a preparation under way."""

    spec: Spec


@frozen
class Abandon:
    """Give up the preparation under way."""


@frozen
class Reject:
    """The release cannot be tried: remember the failure."""

    revision: str
    message: str
    wait: float = 0.0  # seconds, at least, until the next try


@frozen
class Create:
    spec: Spec
    release: Release
    publish: bool


@frozen
class Start:
    container: Container
    active: bool  # False: a candidate


@frozen
class Watch:
    """Begin to judge a candidate that runs."""

    container: Container


@frozen
class Discard:
    """The candidate failed: keep the evidence, remove it."""

    container: Container
    reason: str


@frozen
class Switch:
    """All traffic to this container in one step; it is the active one from now on."""

    container: Container
    routed: bool  # False: Docker publishes its ports, there is no route to change
    drain_until: float  # for the one that was active


@frozen
class Adopt:
    """Memory was lost: this container serves, so it is the active one."""

    container: Container


@frozen
class Route:
    """Mend the routes: these ports there and nothing else."""

    targets: Mapping[int, Target]


@frozen
class KeepRestarting:
    """From now on Docker restarts it by itself, also while this agent is away."""

    container: Container


@frozen
class Revert:
    """The active release failed within its bake time: the previous one is the active one again."""

    container: Container
    to: Container
    reason: str
    drain_until: float  # for the one that failed


@frozen
class Retire:
    """Let its open connections finish."""

    container: Container
    drain_until: float


@frozen
class Terminate:
    container: Container


@frozen
class Kill:
    container: Container


@frozen
class Remove:
    container: Container


@frozen
class RunHook:
    container: Container
    path: str
    limit: float  # seconds


@frozen
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

"""Whether an image still fits on the engine's disk, asked before the pull.

A full disk hits everything on the host; the container that serves now is worth more than the next one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from almagent.adapters import disk
from almagent.adapters.docker_engine.door import EngineDoor
from almagent.ports import Refused

MIB = 1 << 20
# Above this much room no image of usual size can matter, and the registry is not asked for its size:
# asking counts as a pull where pulls are rationed.
ROOMY = 20 << 30


async def free_bytes(door: EngineDoor, root: Path) -> int | None:
    """Of the engine's disk, for programs that are not root.

    None when its directory is not on this host.
    """
    return await door.call("look at the disk of the Docker engine", lambda _client: _free(root))


def _free(root: Path) -> int | None:
    try:
        return disk.free(root)
    except OSError:
        return None


async def admit(
    reference: str,
    needed: int,
    measure: Callable[[], Awaitable[int | None]],
    make_room: Callable[[], Awaitable[None]],
) -> None:
    """Raises Refused, with both figures, when less than `needed` bytes are free even after `make_room`."""
    free = await measure()
    if free is None or free >= needed:
        return
    await make_room()
    free = await measure()
    if free is not None and free < needed:
        raise Refused(
            f"cannot pull {reference}: it needs {_mib(needed)} of free disk, {_mib(free)} are free"
        )


def _mib(size: int) -> str:
    return f"{size / MIB:.0f} MiB"

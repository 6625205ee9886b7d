"""One directory on the host for each container's /var/log, removed with the container.

It is mode 1777, as /tmp is: in many images the program that logs is not root. No user of the host gets
that far, since the state directory above it is 0700. What is in it belongs to the container and is
never followed, opened for writing or trusted here.
"""

import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from almagent.journal import logger

TARGET = "/var/log"
MODE = 0o1777

log = logger()


def make(logs: Path, name: str) -> Path:
    """A new empty directory. Raises OSError, FileExistsError among them."""
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = logs / name
    path.mkdir()
    path.chmod(MODE)  # mkdir's mode would be cut by the umask
    return path


def source(container: Mapping[str, Any], logs: Path) -> Path | None:
    """The log directory that an inspected container mounts, None if it has none of ours."""
    mounts = [mount for mount in container.get("Mounts") or () if mount["Destination"] == TARGET]
    path = Path(mounts[0].get("Source", "")) if mounts else None
    return path if path is not None and path.parent == logs else None


def discard(path: Path) -> None:
    """Remove it with all the container left in it; what cannot be removed is said and left."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except (OSError, RecursionError) as exc:  # a container can nest deeper than Python recurses
        log.warning("container.log_kept", path=str(path), reason=type(exc).__name__)


def sweep(logs: Path, used: Iterable[Path]) -> None:
    """Remove those of containers that somebody else removed."""
    keep = set(used)
    with suppress(FileNotFoundError):
        for path in logs.iterdir():
            if path not in keep and path.is_dir() and not path.is_symlink():
                discard(path)

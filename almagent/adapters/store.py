"""What must survive, on disk: the state file, the agent's id, and the lock that keeps a second agent out.

Writes replace: temporary file, fsync, rename, fsync of the directory. So after a crash there is the old
content or the new one, and a write that failed half-way changed nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from almagent.journal import logger
from almagent.ports import Refused, Unavailable

FORMAT = 1
FORMAT_LIMIT = 1000  # no format of ours will have such a number
SIZE_LIMIT = 16 << 20  # bytes; ours is far smaller, so what is larger is not ours
SET_ASIDE_LIMIT = 5  # files kept of each kind; the oldest gives way

log = logger()


class FileStore:
    """The Store port: one JSON object in one file, 0600, its format number beside the content."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._trouble = ""
        self._in_the_way = ""  # the kind of file that has to be set aside before the first save

    def load(self) -> dict[str, object]:
        try:
            raw = _read(self._path)
        except FileNotFoundError:
            return {}
        except OSError as error:
            log.warning("store.unreadable", path=str(self._path), error=error.strerror)
            return {}
        state = _decode(raw)
        version = state.pop("version", None)
        if version == FORMAT and not isinstance(version, bool):
            return state
        newer = isinstance(version, int) and FORMAT < version < FORMAT_LIMIT
        self._in_the_way = f"v{version}" if newer else "corrupt"
        with suppress(OSError):  # the disk refuses just now: `save` will see to it
            self._make_way()
        return {}

    def save(self, state: dict[str, object]) -> bool:
        data = json.dumps({**state, "version": FORMAT}).encode()
        try:
            self._make_way()
            replace(self._path, data)
        except OSError as error:
            self._note(error.strerror or type(error).__name__)
            return False
        self._note("")
        return True

    def _make_way(self) -> None:
        """A damaged file may help to find out why; a newer agent's file is wanted when it comes back."""
        if self._in_the_way:
            aside = _free_name(self._path, self._in_the_way)
            with suppress(FileNotFoundError):
                self._path.rename(aside)
                log.warning("store.set_aside", path=str(aside))
            self._in_the_way = ""

    def _note(self, trouble: str) -> None:
        """A change is said once: a full disk is met at every tick."""
        if trouble and trouble != self._trouble:
            log.error("store.failed", path=str(self._path), error=trouble)
        elif self._trouble and not trouble:
            log.info("store.recovered", path=str(self._path))
        self._trouble = trouble


def peek(path: Path) -> dict[str, object]:
    """What `FileStore.load` would give, for those who may not touch the file."""
    try:
        state = _decode(_read(path))
    except OSError:
        return {}
    return state if state.pop("version", None) == FORMAT else {}


def replace(path: Path, data: bytes) -> None:
    """`data` becomes the content of `path`, 0600, durably. Raises OSError; then the old content stays.

    Only an error of the last step, the fsync of the directory, may come when the new content is there.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")  # one writer holds the lock: one name, no litter
    try:
        temporary.unlink(missing_ok=True)
        _write(temporary, data)
        temporary.rename(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        view = memoryview(data)
        while view:  # on a nearly full disk a write may take a part only
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes:
    """b"" for what is not a regular file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(SIZE_LIMIT + 1)
    finally:
        os.close(descriptor)


def _decode(raw: bytes) -> dict[str, Any]:
    """{} for anything but a JSON object."""
    try:
        state = json.loads(raw) if len(raw) <= SIZE_LIMIT else None
    except (ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) else {}


def _free_name(path: Path, kind: str) -> Path:
    names = [path.with_name(f"{path.name}.{kind}-{n}") for n in range(1, SET_ASIDE_LIMIT + 1)]
    if kind != "corrupt":
        names[0] = path.with_name(f"{path.name}.{kind}")
    free = [name for name in names if not name.exists()]
    return free[0] if free else min(names, key=lambda name: name.stat().st_mtime)


def agent_id(state_dir: Path, instance_id: str) -> str:
    """The UUID of this installation on this instance.

    A known `instance_id` other than the one remembered makes a new one: the disk was cloned. "" (not
    known) keeps the current one. A disk that refuses costs the memory of it, not the start.
    """
    id_file, instance_file = state_dir / "agent_id", state_dir / "agent_id.instance"
    current, instance = _uuid(_text(id_file)), _text(instance_file)
    try:
        if not current or (instance_id and instance and instance != instance_id):
            current = str(uuid.uuid4())
            replace(id_file, f"{current}\n".encode())  # first: a crash here only makes one more
        if instance_id and instance != instance_id:
            replace(instance_file, f"{instance_id}\n".encode())
    except OSError as error:
        log.warning("agent_id.not_kept", path=str(id_file), error=error.strerror)
    return current


def _text(path: Path) -> str:
    try:
        return _read(path).decode(errors="replace").strip()
    except OSError:
        return ""


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return ""


class Lock:
    """One agent per RUNTIME_DIR. The file is never removed: two agents could each hold one of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def acquire(self) -> None:
        """At once. Raises Refused naming the holder, Unavailable when the file cannot be opened."""
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise Unavailable(f"cannot open the lock {self._path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 20).decode(errors="replace").strip()
            os.close(descriptor)
            who = f"process {holder}" if holder.isdigit() else "another process"
            raise Refused(f"cannot lock {self._path}: {who} holds it") from error
        self._descriptor = descriptor
        with suppress(OSError):  # on a full disk; the number is only for people
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """The end of the process does the same."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

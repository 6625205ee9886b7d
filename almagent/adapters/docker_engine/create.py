"""Creating one container: what is checked first, and what the engine is asked for.

The engine takes values that make the container impossible to start, and then keeps it, with its name.
So they are refused here, before any call.
"""

from __future__ import annotations

import posixpath
import re
import stat
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from almagent.adapters.docker_engine import labels, lifecycle, logdirs, network
from almagent.adapters.docker_engine.common import Common
from almagent.adapters.docker_engine.network import Subnet
from almagent.core.model import Release, Secret, Spec
from almagent.ports import Refused

INIT_SCRIPT = "/tmp/init/init.sh"  # noqa: S108  in the container, where the images look for it
MAX_VARIABLE = 128 * 1024  # bytes of NAME=value and its end; the kernel's MAX_ARG_STRLEN
RESERVED_TARGETS = ("/proc", "/sys", "/dev", "/etc", "/tmp/init", logdirs.TARGET)  # noqa: S108  in the container
MAX_NAMES = 100  # containers of one revision and flag on one host
_REVISION_PART = 8  # characters


def check_environment(values: Mapping[str, Secret]) -> None:
    """Raises Refused for what Docker or the kernel would choke on; the text has no value in it."""
    for name, value in values.items():
        _check_variable(name, value.reveal())


def check_mounts(release: Release) -> None:
    """Raises Refused for a place that is the container's own, or a source that is not what it should be."""
    if release.code_path:
        _check_target(release.code_dir)
        _check_source(release.code_path, "the code", is_kind=stat.S_ISDIR)
    if release.init_script:
        _check_source(release.init_script, "the init script", is_kind=stat.S_ISREG)


def create(
    client: Any,
    common: Common,
    spec: Spec,
    release: Release,
    *,
    publish: bool,
    abandoned: threading.Event,
) -> str:
    """The full id. Leaves neither a container nor a directory behind when it raises.

    `abandoned` is set when nobody waits for the id any more: a container that the engine made after
    that is removed again.
    """
    subnet = network.ensure(client, common.owner)
    try:
        created = _create(client, common, spec, release, subnet, publish=publish)
    except BaseException:
        network.remove_unused(client, common.owner)
        raise
    if abandoned.is_set():
        lifecycle.remove(client, created, common)
    return created


def _create(
    client: Any, common: Common, spec: Spec, release: Release, subnet: Subnet, *, publish: bool
) -> str:
    rows = client.containers(all=True)
    address = network.free_address(client, common.owner, subnet, rows)
    name = _free_name(common, release.revision, rows)
    directory = logdirs.make(common.logs, name)
    try:
        config = payload(common, spec, release, address, directory, subnet=subnet, publish=publish)
        created: str = client.create_container_from_config(config, name)["Id"]
    except BaseException:
        logdirs.discard(directory)
        raise
    return created


def payload(
    common: Common,
    spec: Spec,
    release: Release,
    address: str,
    log_dir: Path,
    *,
    subnet: Subnet,
    publish: bool,
) -> dict[str, Any]:
    """The engine's create request, by the names of its API. Created from the image ID, never a tag."""
    owner = common.owner
    bindings = {f"{p}/tcp": [_everywhere(p) if publish else _door(subnet)] for p in release.ports}
    return {
        "Image": release.image_id,
        "Env": [f"{name}={value}" for name, value in environment(common, spec).items()],
        "Labels": owner.labels
        | {
            labels.REVISION: release.revision,
            labels.COMMIT: release.commit,
            labels.IMAGE: release.image,
            labels.DIGEST: release.image_digest,
            labels.PORTS: labels.write_ports(release.ports),
        },
        "ExposedPorts": {f"{port}/tcp": {} for port in release.ports},
        "HostConfig": {
            "NetworkMode": owner.network,
            "Mounts": _mounts(release, log_dir),
            "PortBindings": bindings,
            "LogConfig": {"Type": common.log_driver, "Config": dict(common.log_opts)},
            "RestartPolicy": {"Name": "no"},
        },
        "NetworkingConfig": {
            "EndpointsConfig": {owner.network: {"IPAMConfig": {"IPv4Address": address}}}
        },
    }


def environment(common: Common, spec: Spec) -> dict[str, str]:
    """The document's variables, and two of the agent's that a document cannot change."""
    values = {name: value.reveal() for name, value in spec.environment.items()}
    return values | {"MO_USER_ID": common.user_id, "MO_STACK_ID": common.owner.stack_id}


def _mounts(release: Release, log_dir: Path) -> list[dict[str, Any]]:
    """As mounts, not as `Binds`: those make a directory on the host where a source is missing."""
    mounts = [(str(log_dir), logdirs.TARGET, False)]
    if release.code_path:
        mounts.append((release.code_path, release.code_dir, False))
    if release.init_script:
        mounts.append((release.init_script, INIT_SCRIPT, True))
    return [
        {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only}
        for source, target, read_only in mounts
    ]


def _everywhere(port: int) -> dict[str, str]:
    return {"HostIp": "0.0.0.0", "HostPort": str(port)}  # noqa: S104  a service of this host


def _door(subnet: Subnet) -> dict[str, str]:
    """An ephemeral port that only the router knows. Publishing it opens Docker's forward chain, and
    Docker's proxy behind it serves containers of other networks.
    """
    return {"HostIp": network.gateway(subnet), "HostPort": ""}


def _free_name(common: Common, revision: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """Names are for people; when one is taken, by whomever, the next one does."""
    taken = {name.lstrip("/") for row in rows for name in row["Names"] or ()}
    base = f"almagent-{common.owner.word}-{revision[:_REVISION_PART]}"
    for name in (base, *(f"{base}-{number}" for number in range(2, MAX_NAMES))):
        if name not in taken and not (common.logs / name).exists():
            return name
    raise Refused(f"cannot create {base}: {MAX_NAMES} containers have that name")


def _check_variable(name: str, value: str) -> None:
    shown = name if name.isprintable() else repr(name)
    if not name or "=" in name or "\0" in name:
        raise Refused(f"cannot set environment variable {shown!r}: not a name")
    try:
        size = len(f"{name}={value}".encode()) + 1
    except UnicodeEncodeError:
        raise Refused(f"cannot set environment variable {shown}: not valid text") from None
    if "\0" in value:
        raise Refused(f"cannot set environment variable {shown}: it holds a NUL character")
    if size > MAX_VARIABLE:
        raise Refused(f"cannot set environment variable {shown}: longer than 128 KiB")


def _check_target(path: str) -> None:
    clean = posixpath.isabs(path) and posixpath.normpath(path) == path.rstrip("/")
    odd = bool(re.search(r"[\0-\x1f]", path))
    inside = any(path == top or path.startswith(f"{top}/") for top in RESERVED_TARGETS)
    if odd or not clean or inside:
        raise Refused(f"cannot mount the code at {path!r} in the container")


def _check_source(path: str, what: str, *, is_kind: Any) -> None:
    """A link could lead the mount anywhere on the host."""
    try:
        mode = Path(path).lstat().st_mode
    except OSError as exc:
        raise Refused(f"cannot mount {what}: {path}: {exc.strerror}") from exc
    if not is_kind(mode):
        raise Refused(f"cannot mount {what}: {path} is not what it should be")

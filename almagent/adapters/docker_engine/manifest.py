"""How much room an image will take, from what its registry says about it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from almagent.adapters.registry_auth import Login
from almagent.core.frozen import frozen
from almagent.core.imageref import registry_host
from almagent.journal import logger

# A gzipped layer grows two- to threefold, and the packed one lies beside it while it is unpacked.
GROWTH = 3
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # the kernel's words in Go's

log = logger()


@frozen
class EngineFacts:
    """What the engine says about itself."""

    root: Path  # its data directory
    architecture: str
    direct: bool  # it asks registries itself, without a proxy
    unverified: tuple[str, ...]  # hosts and address ranges whose certificates it does not check
    mirrors: tuple[str, ...]  # for the hub

    def reaches(self, host: str) -> bool:
        """Whether a question from here takes the same way as the engine's pull."""
        return self.direct and not (self.mirrors and host == "docker.io")

    def verifies(self, host: str) -> bool:
        name = host.rpartition(":")[0] or host
        address = "127.0.0.1" if name == "localhost" else name.strip("[]")
        with suppress(ValueError):
            number = ipaddress.ip_address(address)
            ranges = [ipaddress.ip_network(text) for text in self.unverified if "/" in text]
            if any(number in one for one in ranges if one.version == number.version):
                return False
        return host not in self.unverified


def describe(info: Mapping[str, Any]) -> EngineFacts:
    """From the answer of the engine's `info`."""
    registries = info.get("RegistryConfig") or {}
    indexes = registries.get("IndexConfigs") or {}
    machine = str(info.get("Architecture", ""))
    return EngineFacts(
        root=Path(info["DockerRootDir"]),
        architecture=ARCHITECTURES.get(machine, machine),
        direct=not (info.get("HttpProxy") or info.get("HttpsProxy")),
        unverified=(
            *(registries.get("InsecureRegistryCIDRs") or ()),
            *(name for name, index in indexes.items() if not index.get("Secure", True)),
        ),
        mirrors=tuple(registries.get("Mirrors") or ()),
    )


async def size(
    engine: EngineFacts,
    repository: str,
    version: str,
    login: Login,
    local: Iterable[Sequence[str]],
) -> int:
    """Bytes that the layers not yet here will take at most; 0 when the registry does not tell.

    `local`: the layers of each image that is here, by the digests of their unpacked content.
    """
    from almagent.adapters.registry import Registry, RegistryError  # noqa: PLC0415  loads an HTTP client

    host = registry_host(repository)
    if not engine.reaches(host):
        return 0
    try:
        async with Registry(repository, login, verified=engine.verifies(host)) as registry:
            manifest = await registry.manifest(version)
            if "manifests" in manifest:
                manifest = await registry.manifest(_choose(manifest, engine.architecture))
            config = await registry.blob(manifest["config"]["digest"])
        packed = [int(layer["size"]) for layer in manifest["layers"]]
        missing = packed[_common(config["rootfs"]["diff_ids"], local) :]
    except (RegistryError, OSError, LookupError, TypeError, ValueError) as exc:
        log.info("image.size_unknown", repository=repository, reason=type(exc).__name__)
        return 0
    return GROWTH * sum(missing)


async def retry_after(
    engine: EngineFacts, repository: str, version: str, login: Login
) -> float | None:
    """Seconds that a registry which limits requests asks for; None when it does not tell."""
    from almagent.adapters.registry import Registry, RegistryError  # noqa: PLC0415  loads an HTTP client

    host = registry_host(repository)
    if not engine.reaches(host):
        return None
    try:
        async with Registry(repository, login, verified=engine.verifies(host)) as registry:
            text = await registry.retry_after(version)
            return float(text) if text is not None else None
    except (RegistryError, OSError, ValueError):
        return None


def _choose(index: Mapping[str, Any], architecture: str) -> str:
    """The digest of the manifest for this machine. Raises LookupError."""
    for entry in index["manifests"]:
        platform = entry.get("platform") or {}
        if (platform.get("os"), platform.get("architecture")) == ("linux", architecture):
            return str(entry["digest"])
    raise LookupError(architecture)


def _common(wanted: Sequence[str], local: Iterable[Sequence[str]]) -> int:
    """How many of the lowest layers are here: a layer is used again only on the same layers below."""
    best = 0
    for layers in local:
        pairs = zip(wanted, layers, strict=False)
        same = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(wanted), len(layers)))
        best = max(best, same)
    return best

"""A container image made in memory: a static busybox and a script that runs the code's `start.sh`.

The format is that of the OCI image specification (manifest.md, config.md, layer.md).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from almagent.demo.errors import DemoError

CODE_DIR = "/srv/app"
PROGRAMS = (
    "cat",
    "echo",
    "nc",
    "printf",
    "sh",
    "sleep",
)  # links to busybox, as the code needs them
DIRECTORIES = ("bin", "dev", "etc", "proc", "srv", "srv/app", "sys", "tmp", "var", "var/log")

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
}  # the kernel's -> Go's names


@dataclass(frozen=True, slots=True)
class Image:
    manifest: bytes
    blobs: dict[str, bytes]  # digest -> content

    @property
    def size(self) -> int:
        """Bytes to pull."""
        return sum(map(len, self.blobs.values()))


def build(mark: str) -> Image:
    """`mark` makes it an image that no other demo has. Raises DemoError: there is no static busybox."""
    files = _file_system(_static_busybox())
    layer = gzip.compress(files, compresslevel=1, mtime=0)
    config = json.dumps(_config(mark, digest(files))).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _descriptor(CONFIG_TYPE, config),
        "layers": [_descriptor(LAYER_TYPE, layer)],
    }
    return Image(json.dumps(manifest).encode(), {digest(blob): blob for blob in (config, layer)})


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "size": len(content), "digest": digest(content)}


def _config(mark: str, layer_id: str) -> dict[str, object]:
    machine = platform.machine()
    return {
        "architecture": ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {
            "Cmd": ["/bin/sh", f"{CODE_DIR}/start.sh"],
            "Env": ["PATH=/bin"],
            "WorkingDir": CODE_DIR,
            "Labels": {"com.mobingi.code_dir": CODE_DIR, "almagent.demo": mark},
        },
        "rootfs": {"type": "layers", "diff_ids": [layer_id]},
    }


def _file_system(busybox: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in DIRECTORIES:
            _add(archive, name, tarfile.DIRTYPE, mode=0o1777 if name == "tmp" else 0o755)
        archive.add(busybox, "bin/busybox", filter=_plain)
        for name in PROGRAMS:
            _add(archive, f"bin/{name}", tarfile.SYMTYPE, target="busybox")
    return buffer.getvalue()


def _add(
    archive: tarfile.TarFile, name: str, kind: bytes, *, mode: int = 0o777, target: str = ""
) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.linkname = kind, mode, target
    archive.addfile(entry)


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Owned by root, whoever owns it on this host."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755
    return entry


def _static_busybox() -> Path:
    """The image has no libraries: a busybox that needs some would not start in it."""
    path = shutil.which("busybox")
    hint = "install the Debian package busybox-static, or the like"
    if path is None:
        raise DemoError(f"cannot make the image: there is no busybox; {hint}")
    needs_libraries = (
        subprocess.run(["ldd", path], check=False, capture_output=True).returncode == 0
    )
    if needs_libraries:
        raise DemoError(f"cannot make the image: {path} is not statically linked; {hint}")
    return Path(path).resolve()  # the file, where that is a link to it

"""Container images made from the static busybox of this machine: no registry, no build, no network."""

from __future__ import annotations

import io
import json
import secrets
import shutil
import subprocess
import tarfile
from collections.abc import Mapping

import docker

LABEL = "almagent-test"  # on every image and so, by inheritance, on every container made from one
DIRECTORIES = ("bin", "etc", "root", "run", "tmp", "var", "var/log", "var/www", "var/www/html")


class Images:
    """Makes images; the same request is answered with the same image. The session removes them by label."""

    def __init__(self, api: docker.APIClient, session: str) -> None:
        self._api = api
        self._session = session
        self._made: dict[tuple[object, ...], str] = {}

    def make(
        self, *changes: str, files: Mapping[str, str | bytes] | None = None, tag: str | None = None
    ) -> str:
        """The reference of an image with a shell, `files` (path -> content, executable) and `changes`.

        `changes` are Dockerfile lines: `CMD [...]`, `EXPOSE 80`, `HEALTHCHECK ...`, `LABEL k=v`, `ENV k=v`.
        With `tag` an earlier image of that name loses it, as with a moving tag.
        """
        contents = dict(files or {})
        key = (changes, tuple(sorted(contents.items())), tag)
        if key not in self._made or tag is not None:
            name = tag or f"{LABEL}/{self._session}:{secrets.token_hex(4)}"
            self._import(name, (*changes, f"LABEL {LABEL}={self._session}"), contents)
            self._made[key] = name
        return self._made[key]

    def id_of(self, reference: str) -> str:
        image: dict[str, str] = self._api.inspect_image(reference)  # type: ignore[no-untyped-call]
        return image["Id"]

    def _import(
        self, name: str, changes: tuple[str, ...], files: Mapping[str, str | bytes]
    ) -> None:
        repository, _, version = name.rpartition(":")
        answer = self._api.import_image_from_data(
            root_file_system(files), repository, tag=version, changes=list(changes)
        )
        last = json.loads(answer.splitlines()[-1])
        if "error" in last:
            raise RuntimeError(f"cannot make the image {name}: {last['error']}")


def root_file_system(files: Mapping[str, str | bytes]) -> bytes:
    """A tar archive: busybox, a symbolic link for each of its programs, `files`."""
    busybox = static_busybox()
    applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in DIRECTORIES:
            _add(archive, name, type=tarfile.DIRTYPE, mode=0o1777 if name == "tmp" else 0o755)
        archive.add(busybox, "bin/busybox")
        for applet in sorted(set(applets.split()) - {"busybox"}):
            _add(archive, f"bin/{applet}", type=tarfile.SYMTYPE, linkname="busybox")
        _add_file(archive, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        for path, content in files.items():
            _add_file(archive, path.lstrip("/"), content)
    return buffer.getvalue()


def static_busybox() -> str:
    path = shutil.which("busybox")
    if path is None:
        raise RuntimeError("cannot make test images: busybox is not installed")
    linked = subprocess.run(["ldd", path], check=False, capture_output=True).returncode == 0
    if linked:
        raise RuntimeError(f"cannot make test images: {path} needs shared libraries")
    return path


def _add(archive: tarfile.TarFile, name: str, **attributes: object) -> None:
    entry = tarfile.TarInfo(name)
    for attribute, value in attributes.items():
        setattr(entry, attribute, value)
    archive.addfile(entry)


def _add_file(archive: tarfile.TarFile, name: str, content: str | bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode = 0o755
    content = content.encode() if isinstance(content, str) else content
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))

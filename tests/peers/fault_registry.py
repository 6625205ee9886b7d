"""A registry that fails in chosen ways. It makes its own images, so that no layer is on the host before."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import secrets
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
PATH = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs)/(?P<what>[^/]+)")


class Fault(StrEnum):
    NONE = "none"
    MANIFEST_MISSING = "manifest missing"
    RATE_LIMIT = "429"
    LOGIN = "login refused"
    SILENT = "silent"  # accepts, never answers
    BLOB_404 = "blob 404"
    BLOB_500 = "blob 500"
    CORRUPT = "blob corrupt"
    CUT = "blob cut"
    STALL = "blob stalls half-way"
    SLOW = "blob slow"  # a little every so often, for longer than the idle limit


@dataclass
class FaultRegistry:
    """Faults of blobs are those of layers: the configuration of an image always comes."""

    address: str
    fault: Fault = Fault.NONE
    faults: dict[str, Fault] = field(default_factory=dict)  # of single repositories
    retry_after: str | None = None
    slow_pieces: int = 20  # of 0.1 s each
    blobs: dict[str, bytes] = field(default_factory=dict)
    layers: set[str] = field(default_factory=set)
    manifests: dict[str, bytes] = field(default_factory=dict)  # name:tag or name@digest
    requests: list[tuple[str, str, str]] = field(
        default_factory=list
    )  # method, path, Authorization
    closing: threading.Event = field(default_factory=threading.Event)

    def publish(
        self,
        name: str,
        *,
        tar: bytes | None = None,
        payload: int = 4096,
        config: Mapping[str, Any] | None = None,
        claimed_size: int | None = None,
    ) -> str:
        """A new image as `name` (repository:tag); its id.

        Its layers are `tar`, if given, and one with `payload` random bytes, of which the manifest says
        that it has `claimed_size`.
        """
        own = _archive(payload)
        layers = [layer for layer in (tar, own) if layer is not None]
        packed = [gzip.compress(layer, 1, mtime=0) for layer in layers]
        raw = json.dumps(_describe(layers, dict(config or {}))).encode()
        sizes = [(digest(data), len(data)) for data in packed]
        if claimed_size is not None:
            sizes[-1] = (sizes[-1][0], claimed_size)
        self._add(name, raw, sizes)
        self.blobs |= {digest(data): data for data in (raw, *packed)}
        self.layers.add(digest(packed[-1]))
        return digest(raw)

    def reference(self, name: str) -> str:
        return f"{self.address}/{name}"

    def digest_of(self, name: str) -> str:
        return digest(self.manifests[name])

    def images_on(self, engine: Any) -> set[str]:
        """Ids of the images that an engine has under a name of this registry."""
        names = {
            row["Id"]: [*(row["RepoTags"] or ()), *(row["RepoDigests"] or ())]
            for row in engine.images()
        }
        return {one for one, has in names.items() if any(n.startswith(self.address) for n in has)}

    def _add(self, name: str, config: bytes, layers: list[tuple[str, int]]) -> None:
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "size": len(config), "digest": digest(config)},
            "layers": [{"mediaType": LAYER, "size": n, "digest": d} for d, n in layers],
        }
        raw = json.dumps(manifest).encode()
        repository = name.partition(":")[0]
        self.manifests |= {name: raw, f"{repository}:{digest(raw)}": raw}


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _describe(layers: Sequence[bytes], config: Mapping[str, Any]) -> dict[str, Any]:
    moment = "2020-01-01T00:00:00Z"
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "created": moment,
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        "history": [{"created": moment, "comment": secrets.token_hex(8)} for _ in layers],
    }


def _archive(payload: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(f"payload-{secrets.token_hex(4)}")
        entry.size = payload
        archive.addfile(entry, io.BytesIO(os.urandom(payload)))
    return buffer.getvalue()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: FaultRegistry

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def log_message(self, *_args: object) -> None:
        """The test reads `requests` instead."""

    def _handle(self) -> None:
        state = self.registry
        state.requests.append((self.command, self.path, self.headers.get("Authorization", "")))
        match = PATH.fullmatch(self.path)
        fault = state.faults.get(match["name"], state.fault) if match else state.fault
        if fault is Fault.SILENT:
            self.close_connection = True
            state.closing.wait()
        elif match is None:
            self._say(200, b"{}", "application/json")
        elif match["kind"] == "manifests":
            self._manifest(f"{match['name']}:{match['what']}", fault)
        else:
            self._blob(match["what"], fault)

    def _manifest(self, key: str, fault: Fault) -> None:
        state = self.registry
        raw = state.manifests.get(key)
        if fault is Fault.RATE_LIMIT:
            extra = {"Retry-After": state.retry_after} if state.retry_after else {}
            self._error(429, "TOOMANYREQUESTS", extra)
        elif fault is Fault.LOGIN:
            self._error(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="test"'})
        elif raw is None or fault is Fault.MANIFEST_MISSING:
            self._error(404, "MANIFEST_UNKNOWN")
        else:
            self._say(200, raw, MANIFEST, {"Docker-Content-Digest": digest(raw)})

    def _blob(self, what: str, fault: Fault) -> None:
        state = self.registry
        data = state.blobs.get(what)
        if what not in state.layers:
            fault = Fault.NONE
        if data is None or fault is Fault.BLOB_404:
            self._error(404, "BLOB_UNKNOWN")
        elif fault is Fault.BLOB_500:
            self._error(500, "UNKNOWN")
        elif fault is Fault.CORRUPT:
            self._say(200, bytes(len(data)), "application/octet-stream")
        elif fault in {Fault.CUT, Fault.STALL, Fault.SLOW}:
            self._half(data, fault)
        else:
            self._say(200, data, "application/octet-stream")

    def _half(self, data: bytes, fault: Fault) -> None:
        self._head(200, len(data), "application/octet-stream", {})
        half = len(data) // 2
        self.wfile.write(data[:half])
        self.wfile.flush()
        if fault is Fault.SLOW:
            self._drip(data[half:])
            return
        self.close_connection = True
        if fault is Fault.STALL:
            self.registry.closing.wait()

    def _drip(self, data: bytes) -> None:
        piece = max(1, len(data) // self.registry.slow_pieces)
        for start in range(0, len(data), piece):
            if self.registry.closing.wait(0.1):
                self.close_connection = True
                return
            self.wfile.write(data[start : start + piece])
            self.wfile.flush()

    def _error(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode()
        self._say(status, body, "application/json", headers)

    def _say(
        self, status: int, body: bytes, kind: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self._head(status, len(body), kind, headers or {})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, length: int, kind: str, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """The engine leaves in the middle of an answer whenever a test wants it to."""


@contextmanager
def fault_registry(make: Callable[[], Any] | None = None) -> Iterator[FaultRegistry]:
    """`make`: gives the listening socket, e.g. of another network namespace; None: on loopback here."""
    state = FaultRegistry("")
    handler = type("Handler", (_Handler,), {"registry": state})
    if make is None:
        server = _Server(("127.0.0.1", 0), handler)
    else:
        server = _Server(("127.0.0.1", 0), handler, bind_and_activate=False)
        server.socket.close()
        server.socket = make()
        server.server_address = server.socket.getsockname()
    state.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield state
    finally:
        state.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()

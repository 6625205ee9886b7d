"""Code from git against the same git commands by hand, interleaved in one run; prints medians and their ratio.

    python -m tests.benchmarks.bench_source [ROUNDS]

fetch: one new commit of a small tree, exported. export: 2,000 files of a commit that the mirror has.
release: one new commit of the 2,000 files, fetched and exported. unflushed: as export, but only the
adapter's tree is on the disk in the end; what durability costs. The goal is a ratio of at most 1.15, of
which the last row is no part.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import structlog

from almagent.adapters.source import GitSourceAdapter
from almagent.core.model import GitSource, Secret
from tests.peers.gitserver import GitHTTPS, Repository, Sshd, make_certificate, make_key, serving

FILES = 2_000


class ByHand:
    """What a person would type: a bare clone, `git fetch`, `git archive | tar`; and `sync -f`, since
    the adapter, too, hands over only what a power cut would leave."""

    def __init__(self, directory: Path, url: str, environment: dict[str, str]) -> None:
        self.directory = directory
        self._url = url
        self._environment = {**os.environ, **environment}
        self._exports = 0
        self._run(f"git init -q --bare {directory}/mirror")

    def fetch(self) -> None:
        self._run(f"git -C {self.directory}/mirror fetch -q --depth=1 {self._url} +main:main")

    def export(self, commit: str, *, flushed: bool = True) -> None:
        self._exports += 1
        tree = f"{self.directory}/{self._exports}"
        flush = f" && sync -f {tree}" if flushed else ""
        self._run(
            f"mkdir {tree} && git -C {self.directory}/mirror archive {commit} | tar -x -C {tree}{flush}"
        )

    def release(self, commit: str) -> None:
        self.fetch()
        self.export(commit)

    def _run(self, command: str) -> None:
        subprocess.run(command, shell=True, env=self._environment, check=True, capture_output=True)


class Both:
    """The adapter and the hand, each with directories of its own, on one repository."""

    def __init__(
        self, place: Path, repository: Repository, source: GitSource, environment: dict[str, str]
    ) -> None:
        self._state = place / "state"
        for part in ("state", "run", "hand"):
            (place / part).mkdir(parents=True)
        self._repository = repository
        self._source = source
        self._rng = random.Random(1)
        self._hand = ByHand(place / "hand", source.url, environment)
        self._adapter = GitSourceAdapter(
            state_dir=self._state,
            runtime_dir=place / "run",
            known_hosts_file=None,
            timeout=60,
            keep_releases=1,
        )

    async def release(self) -> tuple[float, float]:
        """Seconds of the adapter and of the hand for a new commit, fetched and exported."""
        commit = self._repository.commit({"new": content(self._rng)})
        return await in_turn(
            self._rng,
            self._adapter.checkout(self._source),
            lambda: self._hand.release(commit),
        )

    async def export_unflushed(self) -> tuple[float, float]:
        return await self.export(flushed=False)

    async def export(self, *, flushed: bool = True) -> tuple[float, float]:
        """The same for a commit that both have fetched before. The earlier export is only put aside:
        creating files right after removing as many is slow on some file systems, for everybody."""
        commit = self._repository.commit({"new": content(self._rng)})
        await self._adapter.checkout(self._source)
        self._hand.fetch()
        (self._state / "releases").rename(self._state / f"old-{commit}")
        (self._state / "releases").mkdir()
        asked = dataclasses.replace(self._source, reference=commit)
        return await in_turn(
            self._rng,
            self._adapter.checkout(asked),
            lambda: self._hand.export(commit, flushed=flushed),
        )


async def in_turn(
    rng: random.Random, ours: Coroutine[Any, Any, object], theirs: Callable[[], object]
) -> tuple[float, float]:
    took = {}
    steps = [("ours", ours), ("theirs", asyncio.to_thread(theirs))]
    rng.shuffle(steps)
    for who, step in steps:
        os.sync()
        started = time.perf_counter()
        await step
        took[who] = time.perf_counter() - started
    return took["ours"], took["theirs"]


async def compare(
    name: str, rounds: int, step: Callable[[], Awaitable[tuple[float, float]]]
) -> None:
    await step()  # warms up
    rows = [await step() for _ in range(rounds)]
    mine, yours = (statistics.median(row[who] for row in rows) for who in (0, 1))
    print(f"{name:16} {mine * 1000:8.1f} ms {yours * 1000:8.1f} ms {mine / yours:8.2f}")


def content(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randint(100, 3000)).hex().encode()


async def bench(
    transport: str,
    rounds: int,
    place: Path,
    repository: Repository,
    source: GitSource,
    environment: dict[str, str],
) -> None:
    rng = random.Random(2)
    repository.commit({"a": b"1"}, fresh=True)
    small = Both(place / "small", repository, source, environment)
    await compare(f"{transport} fetch", rounds, small.release)
    tree = {f"d{n % 40}/s{n % 7}/f{n}.txt": content(rng) for n in range(FILES)}
    repository.commit(tree, fresh=True)
    large = Both(place / "large", repository, source, environment)
    await compare(f"{transport} release", rounds, large.release)
    await compare(f"{transport} export", rounds, large.export)
    await compare(f"{transport} unflushed", rounds, large.export_unflushed)


async def main(rounds: int) -> None:
    logging.disable()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    print(f"{'':16} {'almagent':>11} {'by hand':>11} {'ratio':>8}")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for part in ("https", "tls", "ssh", "sshd"):
            (place / part).mkdir()
        key = make_key(place / "key", "ed25519")
        server, certificate = Sshd(place / "sshd"), make_certificate(place / "tls")
        os.environ["GIT_SSL_CAINFO"] = str(certificate)
        server.authorize((place / "key.pub").read_text())
        server.start()
        try:
            with serving(GitHTTPS(place, certificate)) as web:
                repository = Repository(place / "app.git")
                source = GitSource(web.url(repository), "main")
                await bench("https", rounds, place / "https", repository, source, {})
                source = GitSource(server.url(repository), "main", private_key=Secret(key))
                ssh = f"ssh -F /dev/null -i {place}/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
                await bench(
                    "ssh", rounds, place / "ssh", repository, source, {"GIT_SSH_COMMAND": ssh}
                )
        finally:
            server.stop()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 11))

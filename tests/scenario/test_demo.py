"""`almagent demo` as a person starts it: the whole story, and what is left when it ends or is ended."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest

from almagent.demo.load import KINDS, Client, Load, Unanswered
from almagent.wiring import table_name
from tests.peers.leaks import nft_tables

DEMO = [sys.executable, "-m", "almagent", "demo"]
PATIENCE = 100.0  # seconds for the whole story


@dataclass
class Show:
    """A demo that runs, and what it has printed so far."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    agent: int = 0  # process id
    stack_id: str = ""

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def watch(self, until: str | None = None) -> None:
        """Read on until a line has that text, or to the end."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if found := re.search(r"process (\d+), settings (\S+),", line):
                settings = tomllib.loads(Path(found[2]).read_text())
                self.agent, self.stack_id = int(found[1]), settings["stack_id"]
            if until is not None and until in line:
                return
        assert until is None, self.text

    def end(self) -> int:
        self.watch()
        return self.process.wait(PATIENCE)


@contextmanager
def shown(directory: Path, **variables: str) -> Iterator[Show]:
    environment = {**os.environ, "TMPDIR": str(directory), **variables}
    with subprocess.Popen(
        DEMO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            yield Show(process)
        finally:
            if process.poll() is None:
                process.terminate()


def left_behind(show: Show, directory: Path, api: docker.APIClient) -> list[object]:
    label = {"label": f"almagent.stack={show.stack_id}"}
    image = re.search(r"127\.0\.0\.1:\d+/almagent-demo:1", show.text)
    table = table_name(show.stack_id, "Web01")
    return [
        *api.containers(all=True, filters=label),
        *api.networks(filters=label),
        *(api.images(image[0]) if image else ()),
        *(name for name in nft_tables() if table in name),
        *directory.iterdir(),
        *Path("/proc").glob(str(show.agent)),
    ]


def in_order(wanted: list[str], words: list[str]) -> bool:
    rest = iter(words)
    return all(word in rest for word in wanted)


def test_the_whole_story(tmp_path: Path, docker_api: docker.APIClient) -> None:
    begun = time.monotonic()
    with shown(tmp_path) as show:
        assert show.end() == 0, show.text
    assert time.monotonic() - begun < PATIENCE
    assert in_order(
        [
            "│ This is the first page. GREETING is: hello",
            "│ This is the second page. GREETING is: good evening",
            "│ This is page three. GREETING is: good night",
        ],
        [line.strip() for line in show.lines],
    )
    assert len(re.findall(r": [1-9]\d* requests, 0 lost", show.text)) == 2 * len(KINDS)
    calls = re.findall(r"\d s +(agent|container)_status +(\S+)", show.text)
    agent = ["starting", "installing", "uptodate", "installing", "uptodate", "error"]
    agent += ["installing", "error", "installing", "uptodate", "spot_terminate"]
    assert in_order(agent, [word for kind, word in calls if kind == "agent"])
    container = ["starting", "running", "updating", "running", "terminated"]
    assert in_order(container, [word for kind, word in calls if kind == "container"])
    assert "\x1b" not in show.text
    assert left_behind(show, tmp_path, docker_api) == []


@pytest.mark.parametrize(
    ("number", "scene"),
    [(signal.SIGTERM, "process "), (signal.SIGINT, "GREETING='good evening'")],
    ids=[
        "terminated when the agent has just been started",
        "interrupted in the midst of an update",
    ],
)
def test_a_signal_ends_it_and_nothing_stays(
    number: int, scene: str, tmp_path: Path, docker_api: docker.APIClient
) -> None:
    with shown(tmp_path) as show:
        show.watch(scene)
        show.process.send_signal(number)
        show.process.send_signal(number)  # an impatient person
        assert show.end() == 130, show.text
    assert left_behind(show, tmp_path, docker_api) == []


def test_an_agent_that_dies_is_told_with_its_last_words(
    tmp_path: Path, docker_api: docker.APIClient
) -> None:
    with shown(tmp_path) as show:
        show.watch("the agent says uptodate")
        os.kill(show.agent, signal.SIGKILL)
        assert show.end() == 1
    assert "the agent has ended (killed by signal 9)" in show.text
    assert "release.active" in show.text
    assert left_behind(show, tmp_path, docker_api) == []


def test_without_a_docker_engine_it_says_so_in_one_line(tmp_path: Path) -> None:
    with shown(tmp_path, DOCKER_HOST=f"unix://{tmp_path}/no.sock") as show:
        assert show.end() == 1
    assert re.fullmatch(r".*cannot .*Docker engine: No such file.*", show.lines[-1])
    assert "Traceback" not in show.text
    assert list(tmp_path.iterdir()) == []


# --- whether its numbers can be believed ---------------------------------------------------------


@dataclass
class Web:
    """A server that gives `answers` on each connection, and then closes it without a word."""

    answers: int
    served: int = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for _ in range(self.answers):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                self.served += 1
            await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()


async def _requests(web: Web, count: int, *, keep_alive: bool) -> int:
    """How many of so many were answered, by one client."""
    server = await asyncio.start_server(web, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        client = Client(url, keep_alive=keep_alive)
        answered = 0
        for _ in range(count):
            try:
                answered += await client.get("/") == "ok"
            except Unanswered:
                continue
        client.close()
        return answered


async def test_a_closed_connection_that_was_reused_is_tried_again() -> None:
    assert await _requests(Web(answers=3), 10, keep_alive=True) == 10


async def test_a_new_connection_without_an_answer_is_a_lost_request() -> None:
    assert await _requests(Web(answers=0), 10, keep_alive=True) == 0
    assert await _requests(Web(answers=1), 10, keep_alive=False) == 10


async def test_the_load_counts_what_is_lost() -> None:
    async with Load("http://127.0.0.1:1") as load:
        await asyncio.sleep(0.2)
    assert all(0 < tally.failed == tally.sent for tally in load.tallies)
    assert all("failed" in tally.first_failure for tally in load.tallies)

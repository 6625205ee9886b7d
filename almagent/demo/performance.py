"""One performance of the demo: from the signals to the exit code, and nothing left behind."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from contextlib import AsyncExitStack

import structlog

from almagent.controlplane.store import CannotOpen
from almagent.demo.errors import DemoError
from almagent.demo.scenery import Scenery
from almagent.demo.screen import Screen
from almagent.demo.stage import FLAG, Stage
from almagent.demo.story import show_status_calls, tell
from almagent.ports import PortError
from almagent.wiring import table_name

INTERRUPTED = 130  # what a shell reports for a program that SIGINT ended
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXPECTED = (DemoError, PortError, CannotOpen, OSError)  # one line tells them

LOOK_AROUND = """
It runs. Look around, from another terminal:
  the page            curl {url}/
  its container       docker ps --filter label=almagent.stack={stack_id}
  a crash             docker kill $(docker ps -q --filter label=almagent.stack={stack_id})
  who has the port    nft list table ip {table}
  the agent's log     tail -f {agent.log}
  its settings        cat {agent.config}
  log in to the API   TOKEN=$(curl -sS {api}/v3/access_token -H 'Content-Type: application/json' \\
                        -d @{login_file} | sed 's/.*"access_token": "\\([^"]*\\)".*/\\1/')
  its status calls    curl -sS {api}/v3/alm/stack/{stack_id}/status -H "Authorization: Bearer $TOKEN"
Ctrl-C goes on with the spot notice, and then takes everything away. A second one leaves the notice out."""


class Performance:
    def __init__(self, *, keep: bool) -> None:
        """`keep`: stop before the end, until a signal comes."""
        self._keep = keep
        self._screen = Screen(sys.stdout, os.environ)
        self._undo = AsyncExitStack()
        self._stage: Stage | None = None
        self._looked = asyncio.Event()
        self._looking = False

    async def run(self) -> int:
        """The exit code. Everything is taken away again, also when a signal ends the story."""
        begun = time.monotonic()
        _keep_quiet()
        story = asyncio.create_task(self._play(), name="story")
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._interrupt, story)
        try:
            async with self._undo:
                await asyncio.wait([story])
                code = INTERRUPTED if story.cancelled() else story.result()
                self._screen.waiting("everything is taken away again")
        except EXPECTED as exc:
            self._screen.failure(_line(exc))
            return 1
        if self._stage is not None:
            took = time.monotonic() - begun
            self._screen.text(f"\nEverything was taken away again. It took {took:.0f} s.")
        return code

    async def _play(self) -> int:
        self._screen.title("almagent on this machine, with no cloud and no network")
        try:
            self._screen.heading("Set the stage")
            self._stage = await Scenery(self._screen, self._undo).set_up()
            await tell(self._stage, self._look_around if self._keep else None)
        except EXPECTED as exc:
            self._screen.failure(_line(exc))
            if self._stage is not None:
                self._explain(self._stage)
            return 1
        return 0

    def _explain(self, stage: Stage) -> None:
        show_status_calls(stage)
        self._screen.heading("The last lines of the agent's log")
        self._screen.quote(stage.agent.last_words())

    async def _look_around(self, stage: Stage) -> None:
        server = stage.control_plane
        self._screen.text(
            LOOK_AROUND.format(
                url=stage.url,
                stack_id=stage.stack.stack_id,
                table=table_name(stage.stack.stack_id, FLAG),
                agent=stage.agent,
                api=server.url,
                login_file=server.store.login_file,
            )
        )
        self._looking = True
        await self._looked.wait()

    def _interrupt(self, story: asyncio.Task[int]) -> None:
        """The first signal while one looks around is what one was told to send."""
        if self._looking:
            self._looking = False
            self._looked.set()
        else:
            story.cancel()


def _line(exc: Exception) -> str:
    return f"cannot go on: {exc}" if isinstance(exc, OSError) else str(exc)


def _keep_quiet() -> None:
    """What the servers of this process log is not part of the show; who has failed says so itself."""
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


async def perform(*, keep: bool) -> int:
    """The exit code."""
    return await Performance(keep=keep).run()

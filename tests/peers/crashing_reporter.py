"""Forks agents that report without a pause and kills each after the time that a line on stdin tells.

    crashing_reporter.py API_URL STATE_FILE

"at work 0.05": so long after its first status; "starting 0.01": so long after its birth; "end": an agent
that says nothing new, delivers what waits and leaves. Each goes on where the state file says the last one
was. After each a line on stdout tells how many statuses were made.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path

from almagent.adapters.api import AlmApi
from almagent.adapters.store import FileStore
from almagent.core.model import AgentStatus, AgentWord, Secret
from almagent.core.outbox import Outbox
from almagent.pacing import Phase
from almagent.reporter import Reporter

FLUSH = 10.0  # seconds


class Agent:
    def __init__(self, url: str, path: Path) -> None:
        self.store = FileStore(path)
        state = self.store.load()
        outbox = state.get("outbox")
        self.made = made(state)
        self.outbox = Outbox.from_dict(outbox if isinstance(outbox, dict) else {})
        self.api = AlmApi(
            url=url, client_id="c", client_secret=Secret("s"), stack_id="s", flag="f", agent_id="a"
        )
        phase = Phase("a", 0.05, random.random)
        self.reporter = Reporter(self.outbox, self.api, self.save, phase, replay_spacing=0.0)

    def save(self) -> bool:
        return self.store.save({"outbox": self.outbox.to_dict(), "made": self.made})

    async def live(self, at_work: int) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.reporter.run())
            while True:
                self.made += 1
                self.reporter.offer([AgentStatus(AgentWord.ERROR, f"{self.made}")])
                os.write(at_work, b".")
                await asyncio.sleep(0.004)

    async def end(self) -> None:
        await self.reporter.flush(asyncio.get_running_loop().time() + FLUSH)
        await self.api.close()


def made(state: dict[str, object]) -> int:
    return int(str(state.get("made", 0)))


def main(url: str, path: Path) -> None:
    for line in sys.stdin:
        order, _, seconds = line.strip().rpartition(" ")
        signs_of_life, at_work = os.pipe()
        child = os.fork()
        if child == 0:
            agent = Agent(url, path)
            asyncio.run(agent.live(at_work) if order else agent.end())
            os._exit(0)
        if order == "at work":
            os.read(signs_of_life, 1)
        if order:
            time.sleep(float(seconds))
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(signs_of_life)
        os.close(at_work)
        print(made(FileStore(path).load()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

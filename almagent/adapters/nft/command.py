"""The `nft` child process: one transaction or one listing, with a deadline."""

from __future__ import annotations

import asyncio
import os
from collections import deque

from almagent.adapters.nft.generation import generation
from almagent.core.frozen import frozen
from almagent.ports import Unavailable

DEADLINE = (
    10.0  # seconds; a transaction takes 10 to 30 ms, other users of nft may hold the kernel's lock
)


@frozen
class Answer:
    ok: bool
    text: str  # the listing, or the first line of nft's complaint


class Nft:
    """Runs nft. `pids` are the latest children, by which their notifications are told from others'."""

    def __init__(self, deadline: float = DEADLINE) -> None:
        self._deadline = deadline
        self.pids: deque[int] = deque(maxlen=16)
        self._listed: tuple[str, bytes, str | None] | None = None  # table, generation, listing

    async def load(self, script: str) -> Answer:
        """All of `script` in one transaction, or nothing of it. Raises Unavailable: no answer."""
        return await self._run("-f", "-", text=script)

    async def check(self, script: str) -> Answer:
        """Whether the kernel would take `script`; nothing is changed. Raises Unavailable: no answer."""
        return await self._run("--check", "-f", "-", text=script)

    async def list_table(self, table: str) -> str | None:
        """Our table as nft prints it; None: there is none. Raises Unavailable.

        A child costs 10 ms, and we look for ever: the last listing holds until the kernel's rules change.
        """
        now = generation()
        if now is not None and self._listed is not None and self._listed[:2] == (table, now):
            return self._listed[2]
        listing = await self._list(table)
        self._listed = None if now is None else (table, now, listing)
        return listing

    async def _list(self, table: str) -> str | None:
        answer = await self._run("--numeric-priority", "list", "table", "ip", table)
        if answer.ok:
            return answer.text
        if "No such file or directory" in answer.text:
            return None
        raise Unavailable(f"cannot list nftables table {table}: {answer.text}")

    async def _run(self, *arguments: str, text: str = "") -> Answer:
        process = await self._spawn(arguments)
        self.pids.append(process.pid)
        try:
            async with asyncio.timeout(self._deadline):
                out, err = await process.communicate(text.encode())
        except TimeoutError:
            raise Unavailable(f"cannot run nft: no answer within {self._deadline:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode == 0:
            return Answer(ok=True, text=out.decode(errors="replace"))
        return Answer(ok=False, text=_complaint(err.decode(errors="replace"), process.returncode))

    async def _spawn(self, arguments: tuple[str, ...]) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                "nft",
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "LC_ALL": "C"},  # its complaints are matched
            )
        except OSError as exc:
            raise Unavailable(f"cannot run nft: {exc.strerror}") from exc


def _complaint(err: str, code: int | None) -> str:
    lines = err.strip().splitlines()
    return lines[0].removeprefix("Error: ") if lines else f"exit status {code}"

"""Running a program of the image in a container, when the image has one."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from typing import Any

from almagent.adapters.docker_engine import texts
from almagent.adapters.docker_engine.door import LONG, EngineDoor
from almagent.journal import logger

MAX_OUTPUT = 65536  # bytes of the end of its output
_EXECUTABLE = 0o111
_LINK = 1 << 27  # Go's os.ModeSymlink
_DIRECTORY = 1 << 31  # Go's os.ModeDir

log = logger()


async def run(door: EngineDoor, container_id: str, path: str, deadline: float) -> str:
    """The end of its output; "" when there is no such program. Raises Refused, Unavailable.

    After `deadline` seconds it is left alone: the container is about to be stopped anyway.
    """
    output: deque[bytes] = deque()
    try:
        async with asyncio.timeout(deadline):
            what = f"run {path} in container {container_id[:12]}"
            if not await door.call(what, lambda c: _is_program(c, container_id, path)):
                return ""
            log.info("hook.started", container=container_id, path=path)
            code = await _follow(door, what, container_id, path, output=output)
            log.info("hook.ended", container=container_id, path=path, exit_code=code)
    except TimeoutError:
        log.warning("hook.timed_out", container=container_id, path=path, deadline_s=deadline)
    return texts.last_lines(b"".join(output), MAX_OUTPUT)


async def _follow(
    door: EngineDoor, what: str, container_id: str, path: str, *, output: deque[bytes]
) -> int | None:
    """The exit code. What it writes goes to `output`, of which only the end is kept."""
    run_id = await door.call(what, lambda c: c.exec_create(container_id, [path])["Id"])
    kept = 0
    async with aclosing(
        door.stream(what, lambda c: c.exec_start(run_id, stream=True), idle=LONG)
    ) as chunks:
        async for chunk in chunks:
            output.append(chunk)
            kept += len(chunk)
            while kept - len(output[0]) >= MAX_OUTPUT:
                kept -= len(output.popleft())
    code: int | None = await door.call(what, lambda c: c.exec_inspect(run_id)["ExitCode"])
    return code


def _is_program(client: Any, container_id: str, path: str) -> bool:
    try:
        mode = client.stat(container_id, path)["mode"]
    except client.NotFound:
        return False
    return not mode & _DIRECTORY and bool(mode & (_EXECUTABLE | _LINK))

"""The agent's commands as child processes, beside whatever else the test has running."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 30.0  # seconds; a command takes one at most on an idle machine


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def almagent(
    *arguments: str | Path,
    stdin: bytes = b"",
    env: Mapping[str, str | None] | None = None,
    user: int | None = None,
) -> Done:
    """`env`: changes to this environment, None takes a name away. `user`: run as that user id."""
    environ = {**os.environ, **(env or {})}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "almagent", *map(str, arguments)),
        env={name: value for name, value in environ.items() if value is not None},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        user=user,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await child.communicate(stdin)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode is not None
    return Done(child.returncode, out.decode(), err.decode())

"""Polls an API by name while the only name server is silent; says how long each thing took.

To be run as `unshare --net --mount python dead_resolver.py`: it changes its own namespaces only.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from almagent.adapters.api import AlmApi
from almagent.core.model import Secret
from almagent.ports import Unavailable

TIMEOUT = 0.3  # seconds for one call


def silence_the_resolver() -> socket.socket:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    resolv_conf = Path(tempfile.mkdtemp()) / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.1\noptions timeout:5 attempts:2\n")
    subprocess.run(["mount", "--bind", resolv_conf, "/etc/resolv.conf"], check=True)
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    return server


async def poll(times: int) -> dict[str, object]:
    alm = AlmApi(
        url="http://api.example.test",
        client_id="mo-1",
        client_secret=Secret("s"),
        stack_id="mo-1",
        flag="Web01",
        agent_id="a",
        timeout=TIMEOUT,
    )
    texts, started = [], time.monotonic()
    for _ in range(times):
        try:
            await alm.fetch_document()
        except Unavailable as error:
            texts.append(str(error))
    calls = time.monotonic() - started
    started = time.monotonic()
    await asyncio.to_thread(sum, (1, 1))  # everybody else's pool is free
    other = time.monotonic() - started
    await alm.close()
    return {"texts": texts, "calls": calls, "other": other}


if __name__ == "__main__":
    name_server = silence_the_resolver()
    print(json.dumps(asyncio.run(poll(8))))
    sys.stdout.flush()

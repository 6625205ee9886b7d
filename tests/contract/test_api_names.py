"""What a silent name server does to the agent: calls end in time, nobody else waits, the process can end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

PEER = Path(__file__).parent.parent / "peers" / "dead_resolver.py"


def test_a_silent_name_server_blocks_neither_calls_nor_threads_nor_the_exit():
    environment = {**os.environ, "PYTHONPATH": str(PEER.parent.parent.parent)}
    started = time.monotonic()
    done = subprocess.run(
        ["unshare", "--net", "--mount", sys.executable, PEER],
        env=environment, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert len(told["texts"]) == 8
    assert told["calls"] < 8 * 0.3 + 1.0
    assert told["other"] < 0.5
    assert time.monotonic() - started < 7.0  # glibc alone would wait 10 s for each look-up

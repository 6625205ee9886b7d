import asyncio
import subprocess
import sys
import threading

import pytest

from almagent.adapters.threads import Door


async def test_call_gives_the_result():
    assert await Door("t").call(divmod, 7, 2, timeout=5) == (3, 1)


async def test_call_raises_what_the_function_raised():
    with pytest.raises(ZeroDivisionError):
        await Door("t").call(divmod, 1, 0, timeout=5)


async def test_stop_iteration_ends_the_call():
    with pytest.raises(RuntimeError):  # a coroutine cannot raise StopIteration
        await Door("t").call(next, iter(()), timeout=5)


async def test_deadline_leaves_the_thread_behind():
    door, release = Door("t", limit=1), threading.Event()
    with pytest.raises(TimeoutError):
        await door.call(release.wait, timeout=0.05)
    with pytest.raises(TimeoutError):  # its place is still taken
        await door.call(int, timeout=0.05)
    release.set()
    assert await door.call(int, timeout=5) == 0


async def test_cancelled_call_drops_its_late_result():
    door, release = Door("t", limit=1), threading.Event()
    task = asyncio.create_task(door.call(release.wait, timeout=5))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    assert await door.call(int, timeout=5) == 0


async def test_no_more_than_limit_at_a_time():
    door, lock, running, peak = Door("t", limit=2), threading.Lock(), 0, 0

    def work() -> None:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        threading.Event().wait(0.01)
        with lock:
            running -= 1

    await asyncio.gather(*(door.call(work, timeout=5) for _ in range(8)))
    assert peak <= 2


def test_hung_call_does_not_keep_the_interpreter_from_ending():
    code = """
import asyncio, contextlib, threading
from almagent.adapters.threads import Door
async def main():
    with contextlib.suppress(TimeoutError):
        await Door("t").call(threading.Event().wait, timeout=0.05)
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], timeout=10, check=False, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")

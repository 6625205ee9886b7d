"""Places where a test may end this process as a power cut would; inert unless the environment says so.

ALMAGENT_FAILPOINT=NAME or NAME:N: kill -9 this process when it passes that place for the Nth time.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "ALMAGENT_FAILPOINT"

_passed = 0


def passed(name: str) -> None:
    """Note that the step of that name has just been done, and nothing after it."""
    wanted, _, count = os.environ.get(VARIABLE, "").partition(":")
    if name != wanted:
        return
    global _passed  # noqa: PLW0603 - a count over the life of the process
    _passed += 1
    if _passed == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)

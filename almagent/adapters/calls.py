"""What adapters tell of their requests, to whoever counts them."""

from __future__ import annotations

from collections.abc import Callable

SILENT = "silent"  # the outcome of a call that was given up: nothing came back, good or bad

OnCall = Callable[[str, str, float], None]
"""Told of every request: its name (one of a few), how it ended, seconds. Cheap, never raises."""


def uncounted(_name: str, _outcome: str, _seconds: float) -> None:
    """For callers that count nothing."""

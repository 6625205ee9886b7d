"""Where modules get their logger: `log = logger()`; then `log.info("poll.failed", reason=...)`.

It is structlog's, loaded with the first event. A command that looks and ends rarely has one, and would
spend a twentieth of its time on it. `logs` configures where events go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_configure: Callable[[], None] | None = None


def logger() -> Any:
    return _Logger()


def before_the_first_event(configure: Callable[[], None]) -> None:
    """Have it called then, if there is one and nobody has configured structlog before."""
    global _configure  # noqa: PLW0603  the process has one log, as structlog has one configuration
    _configure = configure


class _Logger:
    def __getattr__(self, method: str) -> Any:
        import structlog  # noqa: PLC0415  see above

        if _configure is not None and not structlog.is_configured():
            _configure()
        return getattr(structlog.get_logger(), method)

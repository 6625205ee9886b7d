"""What an engine's refusal, silence or absence is in our words, whichever library met it."""

from __future__ import annotations

from almagent.adapters.docker_engine import texts
from almagent.ports import PortError, Refused, Unavailable

GATEWAY_STATUS = {502, 503, 504}  # the engine, or a proxy before it, is there but not able to work
STARTING = ("containerd.sock", "is shutting down", "context deadline exceeded", "context canceled")


def is_about_version(text: str) -> bool:
    """The engine is another one than the one whose API version is remembered: it says nothing of the request."""
    return "client version" in text


def refusal(what: str, status: int, explanation: str) -> PortError:
    """The engine said no with this HTTP status. `what` completes "cannot ..." here and below."""
    text = texts.one_line(explanation)
    message = f"cannot {what}: {text}"
    starting = status in GATEWAY_STATUS or any(word in text for word in STARTING)
    if starting or is_about_version(text):
        return Unavailable(message)
    return Refused(message)


def silence(what: str, idle: float) -> Unavailable:
    """`idle`: seconds that were waited for a byte."""
    return Unavailable(f"cannot {what}: nothing came from the Docker engine for {idle:g} s")


def nonsense(what: str) -> Unavailable:
    return Unavailable(f"cannot {what}: the Docker engine gave an answer that is not valid")


def absence(what: str, exc: BaseException, *, known: bool) -> Unavailable:
    """`known`: the text of the error can be shown; else its kind is."""
    reason = texts.one_line(str(_root(exc))) if known else type(exc).__name__
    return Unavailable(f"cannot {what}: cannot reach the Docker engine: {reason}")


def _root(exc: BaseException) -> BaseException:
    """The operating system's reason at the bottom of the libraries' wrappings, if there is one."""
    seen: BaseException | None = exc
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno is not None:
            return OSError(f"{seen.strerror or seen}")
        seen = seen.__cause__ or seen.__context__
    return exc

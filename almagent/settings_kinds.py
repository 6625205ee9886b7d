"""What a setting can be: how it is told to the operator, and how it is checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from almagent.clouds import CLOUDS
from almagent.core.model import Secret

T = TypeVar("T")


class Kind(NamedTuple):
    allowed: str  # the end of the sentence "must be ..."
    # What was given -> the value. Raises ValueError, whose text is not used.
    check: Callable[[Any], Any]
    is_text: bool = True  # False: the environment and the command line write it as the file does


# --- checks --------------------------------------------------------------------------------------


def _of(kind: type[T], given: object) -> T:
    if not isinstance(given, kind):
        raise ValueError  # noqa: TRY004  like all else that will not do
    return given


def _text(given: object) -> str:
    text = _of(str, given)
    text.encode()  # what is not UTF-8 in the environment is no text
    return text


def _name(given: object) -> str:
    text = _text(given)
    if not text.strip() or len(text) > 255 or not text.isprintable():
        raise ValueError
    return text


def _secret(given: object) -> Secret:
    return Secret(_text(given))


def _absolute(given: object) -> Path:
    """Names of files need not be UTF-8."""
    text = _of(str, given)
    if not text.startswith("/") or "\0" in text:
        raise ValueError
    return Path(text)


def absolute_or_none(given: object) -> Path | None:
    return None if given == "" else _absolute(given)


def _http_url(given: object) -> str:
    text = _text(given)
    url = urlsplit(text)
    plain = not (url.username or url.password or url.query or url.fragment)
    if url.scheme not in {"http", "https"} or not url.hostname or not plain or url.port == 0:
        raise ValueError
    return text.rstrip("/")


def _http_url_or_empty(given: object) -> str:
    return "" if given == "" else _http_url(given)


def _engine_address(given: object) -> str:
    text = _text(given)
    url = urlsplit(text)
    if url.scheme == "unix" and url.path.startswith("/") and not url.netloc:
        return text
    if url.scheme in {"tcp", "http", "https"} and url.hostname and url.port:
        return text
    raise ValueError


def _listen_address(given: object) -> str:
    text = _text(given)
    host, _, port = text.rpartition(":")
    if text and not (host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError
    return text


def _texts(given: object) -> Mapping[str, str]:
    return {_text(name): _text(value) for name, value in _of(dict, given).items()}


def _number(given: object, low: float, high: float) -> int | float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not low <= given <= high:
        raise ValueError
    return given


# --- kinds ---------------------------------------------------------------------------------------


def one_of(*words: str) -> Kind:
    def check(given: object) -> object:
        if given not in words:
            raise ValueError
        return given

    return Kind(f"one of {', '.join(words)}", check)


def seconds(*, low: float = 0, high: float = 86400) -> Kind:
    allowed = f"a number of seconds, at least {low:g} and at most {high:g}"
    return Kind(allowed, lambda given: float(_number(given, low, high)), is_text=False)


def count(unit: str, *, low: int, high: int) -> Kind:
    allowed = f"a whole number of {unit}, at least {low} and at most {high}"
    return Kind(allowed, lambda given: _of(int, _number(given, low, high)), is_text=False)


_URL = "an http or https URL without user name, query and fragment"

Name = Annotated[str, Kind("printable text of 1 to 255 characters", _name)]
Text = Annotated[str, Kind("text", _text)]
SecretText = Annotated[Secret, Kind("text", _secret)]
AbsolutePath = Annotated[Path, Kind("an absolute path", _absolute)]
OptionalPath = Annotated[Path | None, Kind('an absolute path, or "" for none', absolute_or_none)]
HttpUrl = Annotated[str, Kind(_URL, _http_url)]
OptionalHttpUrl = Annotated[str, Kind(f'{_URL}, or "" for none', _http_url_or_empty)]
EngineAddress = Annotated[str, Kind("unix:///path/to/socket or tcp://host:port", _engine_address)]
Provider = Annotated[str, one_of("auto", *CLOUDS, "none")]
ListenAddress = Annotated[str, Kind('host:port, or "" for none', _listen_address)]
Texts = Annotated[Mapping[str, str], Kind("a table of text values", _texts, is_text=False)]

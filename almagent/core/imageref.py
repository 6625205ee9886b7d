"""Image references by the grammar of the distribution project (github.com/distribution/reference).

Docker's own parser comes too late: it takes `name:a:b` apart wrongly and asks the public hub for an
image called `sha256`. Whatever passes here is safe to hand to the engine.
"""

import re

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
MAX_LENGTH = 255  # characters of the whole reference; the grammar allows that much for the name

_SCHEME = re.compile(r"https?://", re.IGNORECASE)
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?")
_PATH_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")
_IMAGE_ID = re.compile(r"(?:sha256:)?[a-f0-9]{64}")


class ImageRefError(ValueError):
    """The text is no image reference. The message tells the reason, not the text: it may hold a login."""


def parse_image(text: str) -> str:
    """The reference without a scheme and without space around it, as it may be handed to Docker.

    Raises ImageRefError.
    """
    ref = _SCHEME.sub("", text.strip(" \t\r\n"), count=1)
    _check_characters(ref)
    if _IMAGE_ID.fullmatch(ref):
        raise ImageRefError("an image ID is not a reference; write repository:tag or @sha256:...")
    repository, tag, digest = _take_apart(ref)
    host, path = _split_host(repository)
    if host and not _HOST.fullmatch(host):
        raise ImageRefError("the registry host is not a host name with an optional port")
    _check_path(path)
    if tag is not None and not _TAG.fullmatch(tag):
        raise ImageRefError("the tag is not 1 to 128 letters, digits, '_', '.' or '-'")
    if digest is not None and not _DIGEST.fullmatch(digest):
        raise ImageRefError("what follows '@' is not a sha256 or sha512 digest")
    return ref


def registry_host(ref: str) -> str:
    """The registry (with its port) that serves a parsed reference; "docker.io" where none is named."""
    host, _path = _split_host(_take_apart(ref)[0])
    if host in {"", "index.docker.io"}:
        return DEFAULT_REGISTRY
    return host


def split(ref: str) -> tuple[str, str]:
    """A parsed reference as (repository, digest or tag); the digest wins, the tag defaults to latest."""
    repository, tag, digest = _take_apart(ref)
    return repository, digest or tag or DEFAULT_TAG


def _check_characters(ref: str) -> None:
    if not ref:
        raise ImageRefError("it is empty")
    if len(ref) > MAX_LENGTH:
        raise ImageRefError(f"it is longer than {MAX_LENGTH} characters")
    if any(c.isspace() for c in ref):
        raise ImageRefError("it has white space inside")
    if not ref.isascii() or not ref.isprintable():
        raise ImageRefError("it has characters that are not printable ASCII")


def _check_path(path: str) -> None:
    if path != path.lower():
        raise ImageRefError("the repository name has upper-case letters")
    if not all(_PATH_COMPONENT.fullmatch(part) for part in path.split("/")):
        raise ImageRefError(
            "the repository name is not lower-case words joined by '/', '.', '_', '-'"
        )


def _take_apart(ref: str) -> tuple[str, str | None, str | None]:
    """repository, tag, digest: a colon before the last slash belongs to the registry's port."""
    name, at, digest = ref.partition("@")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    return head + slash + last, tag if colon else None, digest if at else None


def _split_host(repository: str) -> tuple[str, str]:
    """Docker's rule: the first component is a host if it could not be a repository on the hub."""
    first, slash, rest = repository.partition("/")
    if slash and (any(c in first for c in ".:[") or first == "localhost" or first != first.lower()):
        return first, rest
    return "", repository

"""The control plane's config document -> `Spec`. One table for the three dialects; nothing half-read.

A document is refused whole, with the field and the reason, before any side effect. Values never appear in
the text of an error: most of them are secrets.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from almagent.core.gitref import GitRefError, check_reference, mend_private_key, parse_repository
from almagent.core.imageref import ImageRefError, parse_image
from almagent.core.model import GitSource, RegistryLogin, Secret, Spec

MAX_ENVIRONMENT_ENTRY = (
    128 * 1024 - 1
)  # bytes of NAME=value; the kernel takes no longer string (execve(2))

# canonical name -> the names it goes by: the API's, the original agent's, its oldest
NAMES: Mapping[str, tuple[str, ...]] = {
    "image": ("image", "container_image"),
    "environment_variables": (
        "environment_variables",
        "environmentVariables",
        "container_env_vars",
    ),
    "gitRepo": ("gitRepo", "container_git_repo", "code"),
    "gitReference": ("gitReference", "container_git_reference"),
    "gitPrivateKey": ("gitPrivateKey", "container_git_private_key"),
    "codeDir": ("codeDir", "container_code_dir"),
    "ports": ("ports", "container_ports"),
    "updated": ("updated", "container_updated"),
    "registryUsername": ("registryUsername", "container_registry_username"),
    "registryPassword": ("registryPassword", "container_registry_password"),
    "users": ("users", "container_users"),
    "addons": ("addons", "container_addons"),
    "storage": ("storage", "container_storage"),
}
NOT_ACTED_ON = ("users", "addons", "storage")

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_RESERVED_DIRS = ("/proc", "/sys", "/dev", "/etc", "/tmp/init", "/var/log")  # noqa: S108 - in the container


class DocumentError(ValueError):
    """The document cannot be used. The text is one line and names field and reason."""


def parse(raw: bytes, known: Iterable[Spec] = ()) -> Spec | None:
    """None: nothing is defined for the flag (an empty body, {}, [] or null). Raises DocumentError.

    What asks for the same as one of `known` has its revision, also when that was made by another release.
    """
    spec = read(raw)
    if spec is None:
        return None
    content = _content(spec)
    same = (other.revision for other in known if _content(other) == content)
    return replace(spec, revision=next(same, None) or _revision(content))


def read(raw: bytes) -> Spec | None:
    """As `parse`, but without the revision, which takes long."""
    document = _decode(raw)
    if document is None or document in ({}, []):
        return None
    if not isinstance(document, dict):
        raise DocumentError("the document must be a JSON object")
    return _spec(_checked(_canonical(document)))


def without_credentials(spec: Spec) -> Spec:
    """The spec as it may be kept on disk: git keys and logins are left out, they are fetched again."""
    source = spec.source
    if source is not None:
        source = GitSource(source.url, source.reference)
    return replace(spec, source=source, registry=None)


def _decode(raw: bytes) -> Any:
    text = raw.strip()
    if not text:
        return None
    try:
        return json.loads(text.decode("utf-8-sig"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise DocumentError("the document is not valid JSON") from None


def _no_constant(_name: str) -> None:
    raise ValueError  # NaN and Infinity are no JSON


def _canonical(document: Mapping[str, Any]) -> dict[str, Any]:
    """The first name with a value wins; null and "" are the same as absent (PHP encodes them so)."""
    found = {}
    for field, names in NAMES.items():
        values = (document[name] for name in names if document.get(name) not in (None, ""))
        for value in values:
            found[field] = value
            break
    return found


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    problems = [] if "image" in given else ["image: is required"]
    for name, value in given.items():
        try:
            found[name] = _CHECKS[name](value)
        except (_Refused, GitRefError, ImageRefError) as exc:  # these repeat no value
            problems.append(f"{name}: {exc}")
    if problems:
        raise DocumentError("; ".join(problems)[:400])
    return found


# --- fields --------------------------------------------------------------------------------------


class _Refused(ValueError):
    """The text follows the field's name, and repeats no value."""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Refused("must be a string")
    return value


def _text_that(check: Callable[[str], str]) -> Callable[[Any], str]:
    return lambda value: check(_text(value))


def _environment(value: Any) -> dict[str, Secret]:
    if value == []:
        return {}
    if not isinstance(value, dict):
        raise _Refused("must be an object of names and values")
    return {_variable_name(name): _variable_value(name, entry) for name, entry in value.items()}


def _variable_name(name: str) -> str:
    """A bad one may be a whole NAME=value: only its good beginning is shown."""
    good = _VARIABLE.match(name)
    if good is None or good[0] != name:
        begins = good[0][:40] if good else ""
        raise _Refused(f"the name that begins with '{begins}' may hold letters, digits, _ . - only")
    return name


def _variable_value(name: str, value: Any) -> Secret:
    match value:
        case None:
            text = ""
        case str():
            text = value
        case float() if not math.isfinite(value):  # 1e999 is a number to JSON
            raise _Refused(f"{name}: must be a number that can be represented")
        case bool() | int() | float():
            text = json.dumps(value)
        case _:
            raise _Refused(f"{name}: must be a string, a number or a boolean")
    if "\0" in text:
        raise _Refused(f"{name}: must not contain a NUL character")
    try:
        size = len(f"{name}={text}".encode())
    except UnicodeEncodeError:
        raise _Refused(f"{name}: must be valid Unicode") from None
    if size > MAX_ENVIRONMENT_ENTRY:
        raise _Refused(f"{name}: must be shorter than 128 KiB")
    return Secret(text)


def _ports(value: Any) -> tuple[int, ...]:
    entries = value if isinstance(value, list) else [value]
    return tuple(sorted({_port(entry) for entry in entries}))


def _port(value: Any) -> int:
    number, _, protocol = str(value).partition("/")
    if isinstance(value, bool) or not number.isascii() or not number.isdigit():
        raise _Refused("must be a list of port numbers from 1 to 65535")
    if protocol not in ("", "tcp"):
        raise _Refused("only TCP ports can be served")
    port = int(number) if len(number) <= 5 else 0
    if not 1 <= port <= 65535:
        raise _Refused("must be a list of port numbers from 1 to 65535")
    return port


def check_directory(text: str) -> str:
    """Where code may be mounted in a container; without a trailing slash. Raises ValueError."""
    path = text.rstrip("/")
    parts = path.split("/")[1:]
    if not path.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise _Refused("must be an absolute path below /, without . and ..")
    if not path.isprintable() or ":" in path:
        raise _Refused("must not contain control characters or colons")
    if any(path == taken or path.startswith(taken + "/") for taken in _RESERVED_DIRS):
        raise _Refused(f"must not be in {', '.join(_RESERVED_DIRS)}")
    return path


def _integer(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _Refused("must be an integer")
    return value


def _users(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = [{"name": n, **(u if isinstance(u, dict) else {"": u})} for n, u in value.items()]
    keys = {"name", "publicKey"}
    if not isinstance(value, list) or not all(_has_texts(u, keys) for u in value):
        raise _Refused("must be a list of {name, publicKey} or an object name: {publicKey}")
    return value


def _addons(value: Any) -> list[Any]:
    if value == {}:
        return []
    if not isinstance(value, list) or not all(_has_texts(a, {"name"}) for a in value):
        raise _Refused("must be a list of {name, ...}")
    return value


def _storage(value: Any) -> dict[str, Any]:
    if value in ([], {}):
        return {}
    if not _has_texts(value, {"type"}) or value["type"] not in ("local", "efs"):
        raise _Refused("must be an object {type: local or efs, id, mountpath}")
    return dict(value)


def _has_texts(value: Any, keys: set[str]) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in keys)


def _login_part(value: Any) -> str:
    text = _text(value)
    if any(ord(c) < 0x20 for c in text):
        raise _Refused("must not contain control characters")
    return text


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "image": _text_that(parse_image),
    "environment_variables": _environment,
    "gitRepo": _text,
    "gitReference": _text_that(check_reference),
    "gitPrivateKey": _text,
    "codeDir": _text_that(check_directory),
    "ports": _ports,
    "updated": _integer,
    "registryUsername": _login_part,
    "registryPassword": _login_part,
    "users": _users,
    "addons": _addons,
    "storage": _storage,
}


# --- spec ----------------------------------------------------------------------------------------


def _spec(fields: Mapping[str, Any]) -> Spec:
    username, password = fields.get("registryUsername", ""), fields.get("registryPassword", "")
    return Spec(
        revision="",
        image=fields["image"],
        environment=fields.get("environment_variables", {}),
        source=_source(fields),
        code_dir=fields.get("codeDir"),
        ports=fields.get("ports"),
        updated=fields.get("updated"),
        registry=RegistryLogin(username, Secret(password)) if username or password else None,
        ignored=tuple(name for name in NOT_ACTED_ON if fields.get(name)),
    )


def _source(fields: Mapping[str, Any]) -> GitSource | None:
    repository, key = fields.get("gitRepo", ""), fields.get("gitPrivateKey", "")
    if not repository:
        return None
    try:
        url, username, password = parse_repository(repository, bool(key))
    except GitRefError as exc:
        raise DocumentError(f"gitRepo: {exc}") from None
    return GitSource(
        url=url,
        reference=fields.get("gitReference", ""),
        username=Secret(username) if username else None,
        password=Secret(password) if password else None,
        private_key=_private_key(url, key),
    )


def _private_key(url: str, text: str) -> Secret | None:
    """Over https there is no use for one, so it is not judged: the API's own example has a mere outline."""
    if not text or url.startswith("https://"):
        return None
    try:
        return Secret(mend_private_key(text))
    except GitRefError as exc:
        raise DocumentError(f"gitPrivateKey: {exc}") from None


def _content(spec: Spec) -> bytes:
    """What is deployed, and nothing of how it is fetched."""
    content = {
        "image": spec.image,
        "environment": sorted((name, value.reveal()) for name, value in spec.environment.items()),
        "source": [spec.source.url, spec.source.reference] if spec.source else None,
        "code_dir": spec.code_dir,
        "ports": spec.ports,
        "updated": spec.updated,
    }
    return json.dumps(content, sort_keys=True).encode()


def _revision(content: bytes) -> str:
    """Its identity. It ends up in labels, names and logs, and the environment may hold guessable secrets,
    so it is a slow hash (RFC 7914 scrypt; about 10 ms, once a changed document)."""
    return hashlib.scrypt(content, salt=b"almagent revision 1", n=2**12, r=8, p=1, dklen=16).hex()

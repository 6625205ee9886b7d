"""What a document may say about code: repository URL, reference, private key.

Everything that git or ssh can be made to run by such a text is refused here, by allowing only what is
known to be harmless: transport helpers (`ext::`), local paths, options, control characters.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import textwrap
from urllib.parse import SplitResult, unquote, urlsplit

MAX_URL = 2048  # characters; what servers and proxies accept
MAX_REFERENCE = 255  # bytes; a branch is a file name at the server
MAX_KEY = 65_536  # characters; a 16384-bit RSA key has 13,000

_USER = r"[A-Za-z0-9_][A-Za-z0-9._+-]*"
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\]"
_SCP_LIKE = re.compile(rf"(?P<user>{_USER})@(?P<host>{_HOST}):(?P<path>[^-:].*)")
_SSH_USER = re.compile(_USER)
_HOST_NAME = re.compile(_HOST)
_NUMBER_HOST = re.compile(r"(?:.*\.)?(?:\d+|0x[0-9a-f]*)\.?", re.IGNORECASE)
_BEGIN = re.compile(r"-----BEGIN ([A-Z ]{0,20}PRIVATE KEY)-----")
_PUBLIC_KEY = re.compile(
    r"^\s*(?:ssh-|ecdsa-sha2-|sk-)|-----BEGIN [A-Z0-9 ]*PUBLIC KEY", re.MULTILINE
)
_BLANKS = re.compile(r"[\s\u200b\u2060\ufeff]+")
_OPENSSH = "OPENSSH PRIVATE KEY"
_OPENSSH_MAGIC = b"openssh-key-v1\0"
_KEY_LABELS = {_OPENSSH, "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY"}


class GitRefError(ValueError):
    """The text cannot be used. One line without the field's name and without any credential."""


# --- repository ----------------------------------------------------------------------------------


def parse_repository(text: str, has_key: bool) -> tuple[str, str | None, str | None]:
    """The URL without credentials, the user name and the password that were in it.

    `git://github.com/...`, which GitHub no longer serves, is read as https, or as ssh with a key.
    An ssh user name is part of the address, not a credential, and stays in the URL. Raises GitRefError.
    """
    _check_characters(text)
    if scp_like := _SCP_LIKE.fullmatch(text):
        _check_host(scp_like["host"])
        return text, None, None
    parts = _split(text)
    match parts.scheme:
        case "https":
            return _https(parts)
        case "ssh":
            return _ssh(parts), None, None
        case "git":
            return _github(parts, has_key), None, None
        case _:
            raise GitRefError("must be an https or ssh address, or user@host:path")


def _check_characters(text: str) -> None:
    if not text:
        raise GitRefError("is empty")
    if len(text) > MAX_URL:
        raise GitRefError(f"is longer than {MAX_URL} characters")
    if text.startswith("-"):
        raise GitRefError("must not begin with '-'")
    for form in (text, unquote(text)):
        if not form.isprintable() or "\\" in form:
            raise GitRefError("must not hold control characters or backslashes, encoded or not")
    if " " in text:
        raise GitRefError("must not hold spaces")


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise GitRefError(
            "has no valid host and port; '/' in a password is written as %2F"
        ) from None
    if parts.scheme and not text[len(parts.scheme) :].startswith("://"):
        raise GitRefError("must be an https or ssh address, or user@host:path")
    if parts.scheme and (parts.query or parts.fragment or text.endswith(("?", "#"))):
        raise GitRefError("must not hold '?' or '#'; in a password they are written as %3F and %23")
    if port is not None and "@" not in parts.netloc and "@" in parts.path:
        # https://user:12/34@host/path: what follows the slash is the rest of a password
        raise GitRefError("must not hold '@' in its path; '/' in a password is written as %2F")
    return parts


def _https(parts: SplitResult) -> tuple[str, str | None, str | None]:
    userinfo, _, _ = parts.netloc.rpartition("@")
    user, colon, password = userinfo.partition(":")
    url = f"https://{_address(parts)}{_path(parts)}"
    return url, unquote(user) or None, unquote(password) if colon else None


def _ssh(parts: SplitResult) -> str:
    userinfo, at, _ = parts.netloc.rpartition("@")
    if ":" in userinfo:
        raise GitRefError("must not hold a password for ssh; a private key is needed there")
    if at and not _SSH_USER.fullmatch(userinfo):
        raise GitRefError("has a user name that ssh does not take")
    return f"ssh://{userinfo}{at}{_address(parts)}{_path(parts)}"


def _github(parts: SplitResult, has_key: bool) -> str:
    if parts.netloc.lower() != "github.com":
        raise GitRefError("must not use git://, which proves neither server nor content, but https")
    return f"{'ssh://git@' if has_key else 'https://'}github.com{_path(parts)}"


def _address(parts: SplitResult) -> str:
    _, _, address = parts.netloc.rpartition("@")
    host = address if parts.port is None else address.rpartition(":")[0]
    host = host.removesuffix(":").lower()
    _check_host(host)
    return host if parts.port is None else f"{host}:{parts.port}"


def _path(parts: SplitResult) -> str:
    if not parts.path.strip("/"):
        raise GitRefError("names no repository on its host")
    return parts.path


def _check_host(host: str) -> None:
    """Names and addresses only; never an address of the link, where clouds keep their metadata service."""
    if not _HOST_NAME.fullmatch(host):
        raise GitRefError("has no valid host name")
    bare = host.strip("[]").removesuffix(".")
    if not (host.startswith("[") or _NUMBER_HOST.fullmatch(host)):
        return
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        # 2852039166 and 0xa9fea9fe are addresses as well, to a C library
        raise GitRefError("has no valid host address") from None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if (mapped or address).is_link_local:
        raise GitRefError("must not name a link-local address")


# --- reference -----------------------------------------------------------------------------------


def check_reference(text: str) -> str:
    """The same text, if `git check-ref-format --allow-onelevel` takes it and it is no option.

    Empty stands for the remote's default branch; commits pass as well. Raises GitRefError.
    """
    if not text:
        return text
    if len(text.encode("utf-8", "surrogatepass")) > MAX_REFERENCE:
        raise GitRefError(f"is longer than {MAX_REFERENCE} bytes")
    if text.startswith("-"):
        raise GitRefError("must not begin with '-'")
    if not text.isprintable() or any(sign in text for sign in " ~^:?*[\\"):
        raise GitRefError(r"must not hold spaces, control characters or any of ~^:?*[\ ")
    if text == "@" or ".." in text or "@{" in text:
        raise GitRefError("must not be '@' or hold '..' or '@{'")
    if text.endswith("."):
        raise GitRefError("must not end with '.'")
    for part in text.split("/"):
        if not part or part.startswith(".") or part.endswith(".lock"):
            raise GitRefError(
                "must not have a part that is empty, begins with '.' or ends with '.lock'"
            )
    return text


# --- private key ---------------------------------------------------------------------------------


def mend_private_key(text: str) -> str:
    r"""The key as OpenSSH reads it: one PEM block, lines of its width, a newline at the end.

    Mends what copying does to a key: byte order mark, CRLF, `\n` as two characters, indentation,
    trailing spaces, all on one line, no last newline. Raises GitRefError for anything but an
    unencrypted private key.
    """
    if len(text) > MAX_KEY:
        raise GitRefError(f"is longer than {MAX_KEY} characters")
    label, body = _private_block(re.sub(r"\\+[rn]", "\n", text))
    if label == "ENCRYPTED PRIVATE KEY" or "Proc-Type:" in body:
        raise GitRefError("is encrypted; a key without passphrase is needed")
    if label not in _KEY_LABELS:
        raise GitRefError("is a private key of a kind that ssh does not use")
    data = _BLANKS.sub("", body)
    _check_key_data(label, data)
    lines = textwrap.wrap(data, 70 if label == _OPENSSH else 64)
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def _private_block(text: str) -> tuple[str, str]:
    """Label and body of the first private key; what stands around it does not matter."""
    if begin := _BEGIN.search(text):
        body, end, _ = text[begin.end() :].partition(f"-----END {begin[1]}-----")
        if end:
            return begin[1], body
    if "PuTTY-User-Key-File" in text:
        raise GitRefError("is a PuTTY key; it must be exported in OpenSSH format")
    if "PRIVATE KEY-----" in text:
        raise GitRefError("is an incomplete private key")
    if _PUBLIC_KEY.search(text):
        raise GitRefError("is a public key, not a private key")
    raise GitRefError("is not a private key (PEM, PKCS#8 or OpenSSH)")


def _check_key_data(label: str, data: str) -> None:
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise GitRefError("is a damaged private key: its text is not base64") from None
    if label == _OPENSSH:
        if not raw.startswith(_OPENSSH_MAGIC):
            raise GitRefError("is a damaged private key: not what OpenSSH writes")
        cipher = raw[len(_OPENSSH_MAGIC) + 4 :]  # PROTOCOL.key: string ciphername, after its length
        if not cipher.startswith(b"none"):
            raise GitRefError("is encrypted; a key without passphrase is needed")
    elif not raw.startswith(b"\x30"):  # a DER sequence
        raise GitRefError("is a damaged private key: not an ASN.1 structure")

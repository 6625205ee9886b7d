"""What a document may say about code. Vectors: git's documentation and CVEs on options and transports in URLs."""

import base64

import pytest

from almagent.core.gitref import (
    MAX_URL,
    GitRefError,
    check_reference,
    mend_private_key,
    parse_repository,
)

CANARY = "canary"

GOOD_REPOSITORIES = [
    # text, has key, URL, user name, password
    ("https://github.com/o/r.git", False, "https://github.com/o/r.git", None, None),
    ("https://github.com/o/r.git", True, "https://github.com/o/r.git", None, None),
    ("HTTPS://GitHub.com/O/r", False, "https://github.com/O/r", None, None),
    ("https://h.example:8443/r", False, "https://h.example:8443/r", None, None),
    ("https://127.0.0.1:1234/r.git", False, "https://127.0.0.1:1234/r.git", None, None),
    ("https://[::1]:1234/r.git", False, "https://[::1]:1234/r.git", None, None),
    ("https://localhost/r.git", False, "https://localhost/r.git", None, None),
    ("https://h/~user/日本", False, "https://h/~user/日本", None, None),
    ("https://TOKEN@h/r", False, "https://h/r", "TOKEN", None),
    ("https://TOKEN:@h/r", False, "https://h/r", "TOKEN", ""),
    ("https://u:p@h/r", False, "https://h/r", "u", "p"),
    ("https://u:p%40%2F%C3%B6@h:1/r", False, "https://h:1/r", "u", "p@/ö"),
    ("https://u@x.com:p@h/r", False, "https://h/r", "u@x.com", "p"),
    ("https://:p@h/r", False, "https://h/r", None, "p"),
    ("ssh://git@h/o/r.git", True, "ssh://git@h/o/r.git", None, None),
    ("ssh://h:2222/~/r.git", True, "ssh://h:2222/~/r.git", None, None),
    ("ssh://git@[2001:db8::1]:22/r", True, "ssh://git@[2001:db8::1]:22/r", None, None),
    ("git@github.com:o/r.git", True, "git@github.com:o/r.git", None, None),
    ("deploy-1@h:/srv/r.git", False, "deploy-1@h:/srv/r.git", None, None),
    ("git@[::1]:r.git", True, "git@[::1]:r.git", None, None),
    ("git://github.com/o/r.git", False, "https://github.com/o/r.git", None, None),
    ("git://github.com/o/r.git", True, "ssh://git@github.com/o/r.git", None, None),
]

BAD_REPOSITORIES = [
    "",
    " ",
    "repo",
    "/etc",
    "./r",
    "../r",
    "~/r",
    "C:/r",
    "github.com:o/r",
    "github.com/o/r",
    "file:///etc",
    "file:/etc",
    "FILE:///etc",
    "ext::sh -c id",
    "ext::sh%20-c%20id",
    "EXT::id",
    "fd::17",
    "https::https://h/r",
    "ext://h/r",
    "http://h/r",
    "ftp://h/r",
    "git+ssh://h/r",
    "javascript://h/r",
    "git://h/r",
    "git://github.com:9418/o/r",
    "git://user@github.com/o/r",
    "https:h/r",
    "https:/h/r",
    "https:///r",
    "https://",
    "https://h",
    "https://h/",
    "https://h//",
    "https://-h/r",
    "https://h-/r",
    "https://h o/r",
    "https://h\\x/r",
    "https://h/r\n",
    "https://h/r\x00",
    "https://h/r%00",
    "https://h/r%0aX",
    "https://h/r\x1b[2J",
    "https://h/r\u2028",
    "https://h/r\ud800",
    " https://h/r",
    "https://h/a b",
    "https://h:0x50/r",
    "https://h:99999/r",
    "https://%2doProxyCommand/r",
    "https://h/r?access_token=canary",
    "https://h/r#canary",
    "https://h/r?",
    "https://u:cana/ry@h/r",
    "https://u:12/canary@h/r",
    "https://u:cana?ry@h/r",
    "https://u:cana#ry@h/r",
    "https://169.254.169.254/latest",
    "https://169.254.169.254./latest",
    "https://[fe80::1]/r",
    "https://[::ffff:169.254.169.254]/r",
    "https://2852039166/latest",
    "https://0xa9fea9fe/latest",
    "https://0251.0376.0251.0376/latest",
    "https://[::1/r",
    "ssh://-oProxyCommand=id/r",
    "ssh://-oProxyCommand=id@h/r",
    "ssh://git:canary@h/r",
    "ssh://u%20x@h/r",
    "ssh://git@h",
    "-oProxyCommand=id@h:r",
    "--upload-pack=id",
    "-u",
    "git@-h:r",
    "git@h:-r",
    "git@h::r",
    "git@h:",
    "git:canary@h:r",
    "git@169.254.169.254:r",
    "https://h/" + "a" * MAX_URL,
]


@pytest.mark.parametrize(("text", "has_key", "url", "user", "password"), GOOD_REPOSITORIES)
def test_repository(text, has_key, url, user, password):
    assert parse_repository(text, has_key) == (url, user, password)


@pytest.mark.parametrize("url", sorted({case[2] for case in GOOD_REPOSITORIES}))
def test_clean_repository_stays_as_it_is(url):
    assert parse_repository(url, has_key=True) == (url, None, None)


@pytest.mark.parametrize("text", BAD_REPOSITORIES)
def test_hostile_repository(text):
    with pytest.raises(GitRefError) as caught:
        parse_repository(text, has_key=False)
    message = str(caught.value)
    assert message.isprintable()
    assert not any(part in message for part in (CANARY, "cana", "access_token", "ProxyCommand"))


@pytest.mark.parametrize(
    "text",
    ["", "main", "v1.2.3", "feature/x-1", "日本", "refs/heads/a", "HEAD", "a" * 255, "1" * 40, "a/-b", "x.y", "#1"],
)  # fmt: skip
def test_reference(text):
    assert check_reference(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *["-", "-x", "--upload-pack=id", "@", "a..b", "a@{1}", "a b", "a~1", "a^", "a:b", "a?", "a*", "a["],
        *["a\\b", "a\n", "a\x00", "a\x7f", "a\u2028", ".a", "a/.b", "a.lock", "a.lock/b", "a/", "/a", "a//b", "a."],
        *["a" * 256, "日" * 86, "a\ud800", "refs/heads/a..b", ":(glob)", "main:x", "HEAD^{/x}"],
    ],
)  # fmt: skip
def test_hostile_reference(text):
    with pytest.raises(GitRefError) as caught:
        check_reference(text)
    assert str(caught.value).isprintable()


# --- keys: only their wrapping is judged here; the forms of real keys have their place with ssh ---


def block(label: str, data: bytes, width: int = 64) -> str:
    text = base64.b64encode(data).decode()
    lines = [text[at : at + width] for at in range(0, len(text), width)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


DER = b"\x30\x82" + bytes(range(200))
PEM = block("RSA PRIVATE KEY", DER)
OPENSSH = block("OPENSSH PRIVATE KEY", b"openssh-key-v1\0\0\0\0\4none" + bytes(200), 70)


@pytest.mark.parametrize(
    "text",
    [
        PEM,
        PEM.rstrip(),
        "\ufeff" + PEM,
        PEM.replace("\n", "\r\n"),
        PEM.replace("\n", "\\n"),
        PEM.replace("\n", "\\\\n"),
        PEM.replace("\n", " \t\n\t"),
        PEM.replace("\n", ""),
        "# my key\n\n" + PEM + "\nthe end",
        block("EC PARAMETERS", b"\6\5") + PEM,
    ],
)
def test_key_is_mended(text):
    assert mend_private_key(text) == PEM


def test_openssh_key_keeps_its_width():
    assert mend_private_key(OPENSSH.replace("\n", " ")) == OPENSSH


ENCRYPTED = PEM.replace(
    "KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n", 1
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not a private key"),
        ("garbage", "is not a private key"),
        ("ssh-rsa AAAA me@host", "is a public key"),
        ("ecdsa-sha2-nistp256 AAAA", "is a public key"),
        (block("PUBLIC KEY", DER), "is a public key"),
        (block("RSA PUBLIC KEY", DER), "is a public key"),
        (block("CERTIFICATE", DER), "is not a private key"),
        ("PuTTY-User-Key-File-3: ssh-ed25519", "is a PuTTY key"),
        (PEM[:100], "is an incomplete private key"),
        (PEM[100:], "is an incomplete private key"),
        (PEM.replace("END RSA", "END EC"), "is an incomplete private key"),
        (block("PGP PRIVATE KEY", DER), "of a kind that ssh does not use"),
        (PEM[:50] + "!" + PEM[51:], "not base64"),
        (block("RSA PRIVATE KEY", b"x"), "not an ASN.1 structure"),
        (block("RSA PRIVATE KEY", b""), "not an ASN.1 structure"),
        (block("OPENSSH PRIVATE KEY", DER), "not what OpenSSH writes"),
        (block("OPENSSH PRIVATE KEY", b"openssh-key-v1\0\0\0\0\nABCDEFGHIJ"), "is encrypted"),
        (block("ENCRYPTED PRIVATE KEY", DER), "is encrypted"),
        (ENCRYPTED, "is encrypted"),
        (ENCRYPTED.replace("\n", "\\n"), "is encrypted"),
        ("-----BEGIN RSA PRIVATE KEY-----" * 10_000, "is longer than"),
    ],
)
def test_what_is_no_usable_private_key(text, reason):
    with pytest.raises(GitRefError) as caught:
        mend_private_key(text)
    assert reason in str(caught.value)
    assert str(caught.value).isprintable()

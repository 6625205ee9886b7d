"""Who is let in, whom we believe, and where the secrets are meanwhile."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from almagent.adapters.source import GitSourceAdapter
from almagent.core.gitref import GitRefError, mend_private_key, parse_repository
from almagent.core.model import GitSource, Secret
from almagent.ports import Refused
from tests.peers.gitserver import PASSWORD, USER, GitHTTPS, Repository, Sshd, make_key

Make = Callable[..., GitSourceAdapter]
CANARY = "canary-3f9a1c"


@contextmanager
def watching_processes(secret: str) -> Iterator[list[str]]:
    """Looks at the arguments and the environment of every other process all the time."""
    seen: list[str] = []
    done, own = threading.Event(), str(os.getpid())

    def watch() -> None:
        while not done.is_set():
            for process in Path("/proc").glob("[0-9]*"):
                for path in (process / "cmdline", process / "environ"):
                    with suppress(OSError):
                        if process.name != own and secret.encode() in path.read_bytes():
                            seen.append(str(path))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def files_with(directory: Path, secret: str) -> list[Path]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return [path for path in files if secret.encode() in path.read_bytes()]


# --- https ---------------------------------------------------------------------------------------


async def test_password(make_source: Make, repository: Repository, https: GitHTTPS, url: str):
    commit = repository.commit({"a": "1"})
    https.password = PASSWORD
    asked = GitSource(url, username=Secret(USER), password=Secret(PASSWORD))
    assert (await make_source().checkout(asked)).commit == commit


async def test_token_as_user_name(
    make_source: Make, repository: Repository, https: GitHTTPS, tmp_path: Path
):
    commit = repository.commit({"a": "1"})
    https.user, https.password = CANARY, ""
    clean, token, password = parse_repository(https.url(repository, f"{CANARY}@"), has_key=False)
    assert (token, password) == (CANARY, None)
    with watching_processes(CANARY) as seen, capture_logs() as logs:
        done = await make_source().checkout(GitSource(clean, username=Secret(CANARY)))
    assert done.commit == commit
    assert (seen, files_with(tmp_path, CANARY), CANARY in str(logs)) == ([], [], False)
    assert list((tmp_path / "run" / "git").iterdir()) == []


@pytest.mark.parametrize("login", [(USER, CANARY), (CANARY, None), None], ids=str)
async def test_wrong_password(
    make_source: Make,
    repository: Repository,
    https: GitHTTPS,
    url: str,
    login: tuple[str, str | None] | None,
):
    repository.commit({"a": "1"})
    https.password = PASSWORD
    user, password = (Secret(text) if text else None for text in login or (None, None))
    with pytest.raises(Refused) as caught, watching_processes(CANARY) as seen:
        await make_source().checkout(GitSource(url, username=user, password=password))
    assert str(caught.value) == f"cannot fetch {url}: authentication refused"
    assert seen == []


async def test_password_does_not_follow_a_redirect(
    make_source: Make, repository: Repository, https: GitHTTPS, url: str
):
    """A server that sends us elsewhere (here: to itself by another name) does not get it there."""
    repository.commit({"a": "1"})
    https.redirect = f"https://localhost:{https.server_port}"
    https.password = PASSWORD
    with pytest.raises(Refused):
        await make_source().checkout(
            GitSource(url, username=Secret(USER), password=Secret(PASSWORD))
        )
    assert f"localhost:{https.server_port}" in https.hosts
    assert set(https.authorizations) == {""}


async def test_unknown_certificate(
    make_source: Make, repository: Repository, url: str, monkeypatch: pytest.MonkeyPatch
):
    repository.commit({"a": "1"})
    monkeypatch.delenv("GIT_SSL_CAINFO")
    with pytest.raises(Refused) as caught:
        await make_source().checkout(GitSource(url))
    assert str(caught.value) == f"cannot fetch {url}: the server's certificate is not trusted"


# --- ssh keys ------------------------------------------------------------------------------------

FORMS = [
    *[("rsa", form) for form in ("PEM", "PKCS8", "RFC4716")],
    *[("ecdsa", form) for form in ("PEM", "PKCS8", "RFC4716")],
    ("ed25519", "RFC4716"),
]
MANGLINGS: dict[str, Callable[[str], str]] = {
    "as it is": lambda key: key,
    "no last newline": str.rstrip,
    "carriage returns": lambda key: key.replace("\n", "\r\n"),
    "old Mac line ends": lambda key: key.replace("\n", "\r"),
    "byte order mark": lambda key: "\ufeff" + key,
    "blank first line": lambda key: "\n\n" + key,
    "trailing spaces": lambda key: key.replace("\n", "  \n"),
    "indented": lambda key: "".join(f"    {line}\n" for line in key.splitlines()),
    "backslash n": lambda key: key.replace("\n", "\\n"),
    "backslash r n": lambda key: key.replace("\n", "\\r\\n"),
    "one line": lambda key: key.replace("\n", ""),
    "one line with spaces": lambda key: key.replace("\n", " "),
    "quoted": lambda key: f'"{key}"',
}


@pytest.mark.parametrize(("kind", "form"), FORMS, ids=str)
async def test_key_of_each_form(
    make_source: Make, repository: Repository, sshd: Sshd, tmp_path: Path, kind: str, form: str
):
    commit = repository.commit({"a": "1"})
    text = make_key(tmp_path / "id", kind, form)
    sshd.authorize((tmp_path / "id.pub").read_text())
    assert {name: mend_private_key(mangle(text)) == text for name, mangle in MANGLINGS.items()} == (
        dict.fromkeys(MANGLINGS, True)
    )
    asked = GitSource(sshd.url(repository), private_key=Secret(mend_private_key(text)))
    assert (await make_source().checkout(asked)).commit == commit


@pytest.mark.parametrize("form", ["PEM", "PKCS8", "RFC4716"])
def test_encrypted_key_is_refused(tmp_path: Path, form: str):
    text = make_key(tmp_path / "id", "rsa", form)
    change = [
        "ssh-keygen",
        "-q",
        "-p",
        "-m",
        form,
        "-P",
        "",
        "-N",
        "secret",
        "-f",
        str(tmp_path / "id"),
    ]
    subprocess.run(change, check=True)
    assert (tmp_path / "id").read_text() != text
    with pytest.raises(GitRefError, match=r"is encrypted; a key without passphrase is needed"):
        mend_private_key((tmp_path / "id").read_text())


async def test_key_that_openssh_cannot_read(make_source: Make, repository: Repository, sshd: Sshd):
    """Ed25519 in PKCS#8, which OpenSSH reads only in releases newer than 9.2."""
    repository.commit({"a": "1"})
    made = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519"], capture_output=True, check=True
    )
    asked = GitSource(
        sshd.url(repository), private_key=Secret(mend_private_key(made.stdout.decode()))
    )
    with pytest.raises(Refused, match=r"cannot read the private key|authentication refused"):
        await make_source().checkout(asked)


async def test_wrong_key(make_source: Make, repository: Repository, sshd: Sshd, tmp_path: Path):
    repository.commit({"a": "1"})
    text = make_key(tmp_path / "wrong", "ed25519")
    asked = GitSource(sshd.url(repository), private_key=Secret(text))
    with pytest.raises(Refused) as caught:
        await make_source().checkout(asked)
    assert str(caught.value) == f"cannot fetch {asked.url}: authentication refused"
    with pytest.raises(Refused, match="authentication refused"):
        await make_source().checkout(GitSource(asked.url))


async def test_key_is_nowhere_but_in_its_file_for_a_while(
    make_source: Make, repository: Repository, sshd: Sshd, key: str, tmp_path: Path
):
    repository.commit({"a": "1"})
    line = key.splitlines()[3]
    asked = GitSource(sshd.url(repository), private_key=Secret(key))
    with watching_processes(line) as seen, capture_logs() as logs:
        await make_source().checkout(asked)
    assert (seen, files_with(tmp_path, line), line in str(logs)) == ([], [], False)


async def test_repository_that_is_not_there(
    make_source: Make, sshd: Sshd, key: str, https: GitHTTPS
):
    asked = GitSource(f"ssh://root@127.0.0.1:{sshd.port}/gone.git", private_key=Secret(key))
    for source in (asked, GitSource(f"https://{https.host}/gone.git")):
        with pytest.raises(Refused) as caught:
            await make_source().checkout(source)
        assert str(caught.value).startswith(f"cannot fetch {source.url}: no such repository")


# --- ssh host keys -------------------------------------------------------------------------------


async def test_host_key_is_remembered_and_a_changed_one_refused(
    make_source: Make, repository: Repository, own_sshd: Sshd, key: str, tmp_path: Path
):
    asked = GitSource(own_sshd.url(repository), private_key=Secret(key))
    repository.commit({"a": "1"})
    with capture_logs() as logs:
        await make_source().checkout(asked)
    accepted = [entry for entry in logs if entry["event"] == "source.host_key_accepted"]
    assert [entry["fingerprint"] for entry in accepted] == [own_sshd.fingerprint()]
    assert (tmp_path / "state/known_hosts").stat().st_mode & 0o777 == 0o600
    for key_type in ("ed25519", "ecdsa"):  # the same type, and another
        own_sshd.stop()
        own_sshd.start(key_type)
        with pytest.raises(Refused) as caught:
            await make_source().checkout(asked)
        now = f"[127.0.0.1]:{own_sshd.port} has changed (now {own_sshd.fingerprint()})"
        assert now in str(caught.value)


async def test_pinned_host_keys(
    make_source: Make, repository: Repository, sshd: Sshd, key: str, tmp_path: Path
):
    repository.commit({"a": "1"})
    asked = GitSource(sshd.url(repository), private_key=Secret(key))
    pinned = tmp_path / "pinned hosts"
    source = make_source(known_hosts_file=pinned)
    with pytest.raises(Refused, match=r"cannot use .*pinned hosts for host keys: No such file"):
        await source.checkout(asked)
    pinned.write_text("# nobody\n")
    with pytest.raises(
        Refused, match=r"the host key of \[127.0.0.1\]:\d+ is not in .*pinned hosts"
    ):
        await source.checkout(asked)
    pinned.write_text(f"[127.0.0.1]:{sshd.port} {sshd.host_keys[-1]}")
    await source.checkout(asked)
    assert not (tmp_path / "state/known_hosts").exists()


async def test_host_keys_that_cannot_be_remembered_are_not_believed(
    make_source: Make, repository: Repository, sshd: Sshd, key: str, tmp_path: Path
):
    repository.commit({"a": "1"})
    (tmp_path / "state/known_hosts").mkdir()
    with pytest.raises(Refused, match=r"cannot use .*known_hosts for host keys: Is a directory"):
        await make_source().checkout(GitSource(sshd.url(repository), private_key=Secret(key)))

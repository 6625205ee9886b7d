"""Where the ALM API adapter sends what it has to say: redirects, proxies, TLS, an API that is away."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from almagent.adapters.alm import brief, transport
from almagent.adapters.alm.proxies import proxy_for
from almagent.adapters.api import AlmApi
from almagent.adapters.http_library import aiohttp
from almagent.adapters.trust import Trust, ask
from almagent.core.model import AgentStatus, AgentWord
from almagent.ports import Refused, Unavailable
from tests.contract.alm_client import BRIEF, SECRET, client
from tests.peers.api import AGENT_STATUS, CONFIG, TOKEN, ScriptedApi, redirect, reply

UPTODATE = AgentStatus(AgentWord.UPTODATE)


@pytest.fixture(autouse=True, params=[False, True], ids=["kept", "brief"])
def transports(request: pytest.FixtureRequest) -> Iterator[None]:
    """All is promised by both."""
    token = BRIEF.set(request.param)
    yield
    BRIEF.reset(token)


@pytest.fixture
async def api() -> AsyncIterator[ScriptedApi]:
    async with ScriptedApi() as scripted:
        yield scripted


@pytest.fixture
async def alm(api: ScriptedApi) -> AsyncIterator[AlmApi]:
    async with client(api) as made:
        yield made


# --- redirects and cookies -----------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("path", [TOKEN, CONFIG, AGENT_STATUS])
async def test_redirects_are_not_followed(api: ScriptedApi, alm: AlmApi, status: int, path: str):
    async with ScriptedApi() as elsewhere:
        api.script(path, redirect(f"{elsewhere.url}{path}?token={SECRET}", status))
        with pytest.raises(Unavailable, match=rf"HTTP {status} to http://127.0.0.1, red") as caught:
            await (alm.post(UPTODATE) if path == AGENT_STATUS else alm.fetch_document())
        assert elsewhere.requests == []
        assert SECRET not in str(caught.value)
    assert await alm.fetch_document()


async def test_the_host_is_named_as_the_settings_name_it(api: ScriptedApi, alm: AlmApi):
    await alm.fetch_document()
    assert [request.headers["host"] for request in api.requests] == [urlsplit(api.url).netloc] * 2


async def test_cookies_are_not_kept(api: ScriptedApi, alm: AlmApi):
    api.script(CONFIG, reply(200, b"{}", {"Set-Cookie": "session=1; Path=/"}))
    await alm.fetch_document()
    await alm.fetch_document()
    assert all("cookie" not in request.headers for request in api.requests)


# --- proxies -------------------------------------------------------------------------------------


async def test_a_proxy_of_the_environment_is_used_and_no_netrc(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    netrc = tmp_path / "netrc"
    netrc.write_text("default login root password netrc-canary\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", api.url)
    async with client(api, url="http://api.example.test/") as alm:
        assert await alm.fetch_document()
    login, poll = api.requests
    assert login.target == f"http://api.example.test{TOKEN}"
    assert poll.target.startswith(f"http://api.example.test{CONFIG}?")
    assert "authorization" not in login.headers


async def test_an_api_may_live_below_a_path(api: ScriptedApi):
    api.always(f"/alm{TOKEN}", reply(200, {"access_token": "t"}))
    api.always(f"/alm{CONFIG}", reply(200, b"{}"))
    async with client(api, url=f"{api.url}/alm/") as alm:
        assert await alm.fetch_document() == b"{}"


async def test_loopback_is_never_asked_through_a_proxy(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch
):
    async with ScriptedApi() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        async with client(api) as alm:
            assert await alm.fetch_document()
        assert proxy.requests == []


@pytest.mark.parametrize("scheme", ["socks5://", "http://CORP\\"])
async def test_a_bad_proxy_is_named_without_its_password(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, scheme: str
):
    monkeypatch.setenv("HTTP_PROXY", f"{scheme}user:{SECRET}@proxy:1080")
    with pytest.raises(Refused, match="HTTP_PROXY") as caught:
        async with client(api, url="http://api.example.test"):
            pass
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "no_proxy", "used"),
    [
        ("https://api.example.com", "", True),
        ("https://api.example.com", "example.com", False),
        ("https://api.example.com", ".example.com, other", False),
        ("https://api.example.com", "*.example.com", False),
        ("https://api.example.com", "*", False),
        ("https://api.example.com", "ample.com,,", True),
        ("https://10.1.2.3", "10.0.0.0/8", False),
        ("https://10.1.2.3", "10.1.2.3", False),
        ("https://10.1.2.3", "192.168.0.0/16,fd00::/8,junk/99", True),
        ("https://[fd00::1]:8443", "fd00::/8", False),
        ("https://127.0.0.9", "", False),
        ("https://[::1]", "", False),
        ("https://localhost:8443", "", False),
        ("https://169.254.169.254", "", False),
        ("http://api.example.com", "", False),  # only HTTPS_PROXY is set
    ],
)
def test_which_addresses_are_asked_through_the_proxy(url: str, no_proxy: str, used: bool):
    environment = {"HTTPS_PROXY": "proxy.test:3128", "no_proxy": no_proxy}
    proxy = proxy_for(url, environment)
    assert proxy == ("http://proxy.test:3128" if used else None)


# --- TLS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Makes a self-signed certificate that is its own CA: (certificate, key) for a host name."""
    directory = tmp_path_factory.mktemp("tls")

    def make(host: str) -> tuple[Path, Path]:
        certificate, key = directory / f"{host}.pem", directory / f"{host}.key"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}",
             "-keyout", key, "-out", certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        return certificate, key

    return make


def showing(certificate: Path, key: Path) -> ssl.SSLContext:
    """What a server is to have that shows this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@pytest.mark.parametrize(
    ("host", "known", "works"),
    [("localhost", True, True), ("localhost", False, False), ("other.test", True, False)],
    ids=["its CA is given", "unknown CA", "another host's certificate"],
)
async def test_tls_is_always_verified(
    authority: Callable[[str], tuple[Path, Path]], host: str, known: bool, works: bool
):
    certificate, key = authority(host)
    async with (
        ScriptedApi(tls=showing(certificate, key)) as api,
        client(api, ca_file=str(certificate) if known else "") as alm,
    ):
        if works:
            assert await alm.fetch_document()
        else:
            with pytest.raises(Unavailable, match="the certificate of localhost is not trusted"):
                await alm.fetch_document()
            assert api.requests == []


async def test_the_trust_store_of_the_system_is_used(
    authority: Callable[[str], tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
):
    certificate, key = authority("localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with ScriptedApi(tls=showing(certificate, key)) as api, client(api) as alm:
        assert await alm.fetch_document()


def told_to_trust(monkeypatch: pytest.MonkeyPatch, directory: Path, bundle: Path) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", str(directory))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))


@pytest.fixture
def hashed(tmp_path: Path, authority: Callable[[str], tuple[Path, Path]]) -> Path:
    """A directory as openssl-rehash(1) leaves it, with somebody else's certificate."""
    directory = tmp_path / "certs"
    directory.mkdir()
    put_into(directory, authority("other.test")[0])
    return directory


def put_into(directory: Path, certificate: Path) -> None:
    command = ["openssl", "x509", "-noout", "-hash", "-in", str(certificate)]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    (directory / f"{name}.0").symlink_to(certificate)


async def test_a_certificate_in_the_directory_is_found_without_the_bundle(
    authority: Callable[[str], tuple[Path, Path]], hashed: Path, monkeypatch: pytest.MonkeyPatch
):
    certificate, key = authority("localhost")
    told_to_trust(monkeypatch, hashed, bundle=authority("bundle.test")[0])
    put_into(hashed, certificate)
    async with ScriptedApi(tls=showing(certificate, key)) as api:
        trust = Trust()
        await ask(partial(get, api.url, trust), trust, aiohttp.ClientConnectorError)
        assert not trust.whole
        assert trust.context.cert_store_stats()["x509"] == 1  # what this connection needed


async def test_the_bundle_is_read_when_the_directory_is_not_enough(
    authority: Callable[[str], tuple[Path, Path]], hashed: Path, monkeypatch: pytest.MonkeyPatch
):
    certificate, key = authority("localhost")
    told_to_trust(monkeypatch, hashed, bundle=certificate)
    async with ScriptedApi(tls=showing(certificate, key)) as api, client(api) as alm:
        assert await alm.fetch_document()
        assert [request.path for request in api.requests] == [TOKEN, CONFIG]


async def test_requests_that_are_refused_at_the_same_time_are_all_asked_again(
    authority: Callable[[str], tuple[Path, Path]], hashed: Path, monkeypatch: pytest.MonkeyPatch
):
    certificate, key = authority("localhost")
    told_to_trust(monkeypatch, hashed, bundle=certificate)
    async with ScriptedApi(tls=showing(certificate, key)) as api:
        trust = Trust()
        await asyncio.gather(
            *(
                ask(partial(get, api.url, trust), trust, aiohttp.ClientConnectorError)
                for _ in range(5)
            )
        )
        assert len(api.requests) == 5


async def test_a_dead_address_does_not_hide_that_the_other_is_not_trusted(
    authority: Callable[[str], tuple[Path, Path]], hashed: Path, monkeypatch: pytest.MonkeyPatch
):
    certificate, key = authority("localhost")
    told_to_trust(monkeypatch, hashed, bundle=certificate)

    def look_up(_host: str, port: int, _family: int = 0) -> list[tuple[Any, ...]]:
        addresses = ("127.0.0.1", "127.0.0.2")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in addresses]

    monkeypatch.setattr(transport, "look_up", look_up)
    monkeypatch.setattr(brief, "look_up", look_up)
    async with ScriptedApi(tls=showing(certificate, key)) as api, client(api) as alm:
        assert await alm.fetch_document()


def test_the_families_of_addresses_take_turns():
    assert brief._by_turns([(6, "a"), (6, "b"), (6, "c"), (4, "d"), (4, "e")]) == [
        *((6, "a"), (4, "d")),
        *((6, "b"), (4, "e")),
        (6, "c"),
    ]


async def test_after_a_deadline_the_bundle_is_read_for_the_next_try(
    hashed: Path, authority: Callable[[str], tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
):
    """An address that does not answer may come after one that was not trusted."""
    told_to_trust(monkeypatch, hashed, bundle=authority("bundle.test")[0])
    trust = Trust()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await ask(partial(asyncio.sleep, 5), trust, OSError)
    assert trust.whole


async def test_neither_directory_nor_bundle_trusts_it(
    authority: Callable[[str], tuple[Path, Path]], hashed: Path, monkeypatch: pytest.MonkeyPatch
):
    certificate, key = authority("localhost")
    told_to_trust(monkeypatch, hashed, bundle=authority("bundle.test")[0])
    async with ScriptedApi(tls=showing(certificate, key)) as api:
        trust = Trust()
        for _ in range(2):
            with pytest.raises(ssl.SSLCertVerificationError):
                await ask(partial(get, api.url, trust), trust, aiohttp.ClientConnectorError)
        assert trust.whole
        assert api.requests == []


@pytest.mark.parametrize("directory", ["no/such", "not-hashed", "not-hashed/README"])
async def test_without_a_hashed_directory_the_bundle_is_read_at_once(
    authority: Callable[[str], tuple[Path, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    directory: str,
):
    (tmp_path / "not-hashed").mkdir()
    (tmp_path / "not-hashed" / "README").touch()
    told_to_trust(monkeypatch, tmp_path / directory, bundle=authority("localhost")[0])
    trust = Trust()
    assert trust.whole
    assert trust.context.cert_store_stats()["x509"] == 1


async def get(url: str, trust: Trust) -> None:
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust.context)) as session,
        session.get(url),
    ):
        pass


WITHOUT_A_CONTEXT = """
import asyncio, sys
from almagent.adapters.http_library import aiohttp

async def ask(url):
    async with aiohttp.ClientSession() as session:
        try:
            await session.get(url)
        except aiohttp.ClientConnectorCertificateError:
            print("not trusted")

asyncio.run(ask(sys.argv[1]))
"""


async def test_who_brings_no_trust_store_trusts_nobody(
    authority: Callable[[str], tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
):
    """The library is loaded without the system's, which takes long to read."""
    certificate, key = authority("localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with ScriptedApi(tls=showing(certificate, key)) as api:
        program = (sys.executable, "-c", WITHOUT_A_CONTEXT, api.url)
        child = await asyncio.create_subprocess_exec(*program, stdout=subprocess.PIPE)
        out, _ = await child.communicate()
        assert out == b"not trusted\n"
        assert api.requests == []


async def test_an_api_without_tls_says_so():
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        async with client(ScriptedApi(), url=f"https://127.0.0.1:{port}") as alm:
            with pytest.raises(Unavailable, match=r"127\.0\.0\.1 does not speak TLS"):
                await alm.fetch_document()


@pytest.mark.parametrize("content", [None, "", "not a certificate"])
async def test_a_ca_file_that_cannot_be_used_is_named(tmp_path: Path, content: str | None):
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_text(content)
    with pytest.raises(Refused, match=f"^cannot use the CA file {ca_file}: "):
        async with client(ScriptedApi(), ca_file=str(ca_file)):
            pass


# --- the API is away -----------------------------------------------------------------------------


async def test_an_api_that_is_away_is_unavailable_and_found_again(api: ScriptedApi, alm: AlmApi):
    await alm.fetch_document()
    await api.stop()
    with pytest.raises(Unavailable, match=r"127.0.0.1 cannot be reached \(Connection refused"):
        await alm.fetch_document()
    await api.start()
    assert await alm.fetch_document()

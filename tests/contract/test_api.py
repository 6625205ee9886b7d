"""The ALM API adapter against an API on a real socket that behaves well and badly."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from almagent.adapters.api import AlmApi, LoginRefused
from almagent.core.model import AgentStatus, AgentWord, ContainerStatus
from almagent.ports import PortError, Refused, Unavailable
from tests.contract.alm_client import AGENT_ID, BRIEF, SECRET, client
from tests.peers.api import (
    AGENT_STATUS,
    CONFIG,
    CONTAINER_STATUS,
    TOKEN,
    Behaviour,
    ScriptedApi,
    cut,
    cut_body,
    drip,
    endless,
    gzip_bomb,
    reply,
    silence,
)

UPTODATE = AgentStatus(AgentWord.UPTODATE)


def head(*lines: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode()


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


# --- what is sent --------------------------------------------------------------------------------


async def test_a_poll_logs_in_once_and_asks_for_stack_and_flag(api: ScriptedApi, alm: AlmApi):
    assert json.loads(await alm.fetch_document() or b"") == api.document
    await alm.fetch_document()
    login, poll, _ = api.requests
    assert login.json == {
        "grant_type": "client_credentials",
        "client_id": "mo-1",
        "client_secret": SECRET,
    }
    assert login.headers["content-type"] == "application/json"
    assert "authorization" not in login.headers
    assert (poll.method, poll.path) == ("GET", CONFIG)
    assert poll.query == {"stack_id": "mo-1", "flag": "Web 01+&"}
    assert poll.headers["authorization"] == "Bearer token-1"
    assert poll.headers["accept"] == "application/json"
    assert poll.headers["accept-encoding"] == "identity"
    assert poll.headers["user-agent"] == "almagent/test"


async def test_statuses_name_the_instance_only_when_it_is_known(api: ScriptedApi, alm: AlmApi):
    await alm.post(UPTODATE)
    alm.instance_id = "i-0abc"
    await alm.post(AgentStatus(AgentWord.ERROR, "m" * 600))
    await alm.post(ContainerStatus("c" * 64, "installing", own=False))
    plain, error, container = (request.json for request in api.requests[1:])
    assert plain == {"stack_id": "mo-1", "agent_id": AGENT_ID, "status": "uptodate"}
    assert error["message"] == "m" * 512
    assert error["instance_id"] == "i-0abc"
    assert container["container_id"] == "c" * 64
    assert container["status"] == "installing"
    assert [r.path for r in api.requests[1:]] == [AGENT_STATUS, AGENT_STATUS, CONTAINER_STATUS]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(reply(200), id="200 empty"),
        pytest.param(reply(202, "<html>"), id="202 html"),
        pytest.param(reply(204), id="204"),
        pytest.param(endless(202), id="202 with a body that never ends"),
        pytest.param(cut(b"HTTP/1.1 202 OK\r\nContent-Length: 9\r\n\r\n"), id="202, body cut"),
    ],
)
async def test_any_2xx_acknowledges(api: ScriptedApi, alm: AlmApi, answer: Behaviour):
    api.script(AGENT_STATUS, answer)
    await alm.post(UPTODATE)
    await alm.post(UPTODATE)  # the connection did not suffer
    assert api.words() == ["uptodate", "uptodate"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, Refused) for status in (400, 409, 410, 413, 422)),
        *(
            (status, Unavailable)
            for status in (401, 403, 404, 405, 408, 425, 429, 500, 502, 503, 504, 302)
        ),
    ],
)
async def test_only_a_final_4xx_refuses_a_status(
    api: ScriptedApi, alm: AlmApi, status: int, kind: type[PortError]
):
    api.script(AGENT_STATUS, reply(status), reply(status))
    with pytest.raises(PortError, match=f"^cannot report uptodate: HTTP {status}") as caught:
        await alm.post(UPTODATE)
    assert type(caught.value) is kind


# --- the token's life ----------------------------------------------------------------------------


async def test_the_token_is_renewed_before_80_percent_of_its_life_are_gone(api: ScriptedApi):
    now = 1000.0
    api.expires_in = 100
    async with client(api, clock=lambda: now) as alm:
        await alm.fetch_document()
        now += 74
        await alm.fetch_document()
        assert api.issued == 1
        now += 5
        await alm.fetch_document()
    assert api.issued == 2
    assert api.asked(CONFIG)[-1].headers["authorization"] == "Bearer token-2"


async def test_a_failed_renewal_goes_on_with_the_old_token_while_it_lives(api: ScriptedApi):
    now = 1000.0
    api.expires_in = 100
    async with client(api, clock=lambda: now) as alm:
        await alm.fetch_document()
        api.always(TOKEN, reply(503))
        now += 90
        await alm.fetch_document()
        now += 11
        with pytest.raises(Unavailable, match="cannot log in: HTTP 503"):
            await alm.fetch_document()


async def test_a_revoked_token_costs_one_login_and_the_call_succeeds(api: ScriptedApi, alm: AlmApi):
    await alm.fetch_document()
    api.revoke_tokens()
    assert await alm.fetch_document()
    assert [request.path for request in api.requests[2:]] == [CONFIG, TOKEN, CONFIG]


async def test_many_callers_of_a_revoked_token_share_one_login(api: ScriptedApi, alm: AlmApi):
    await alm.fetch_document()
    api.revoke_tokens()
    await asyncio.gather(*(alm.post(UPTODATE) for _ in range(20)), alm.fetch_document())
    assert len(api.asked(TOKEN)) == 2


async def test_a_caller_that_gives_up_does_not_end_the_login_of_the_others(
    api: ScriptedApi, alm: AlmApi
):
    api.script(TOKEN, reply(200, {"access_token": "slow"}, delay=0.2))
    api.valid_tokens.add("slow")
    impatient, patient = (asyncio.create_task(alm.fetch_document()) for _ in range(2))
    while not api.requests:
        await asyncio.sleep(0.01)
    impatient.cancel()
    assert await patient
    assert len(api.asked(TOKEN)) == 1


async def test_a_storm_of_401_makes_one_new_login_a_call(api: ScriptedApi, alm: AlmApi):
    api.always(CONFIG, reply(401))
    for _ in range(5):
        with pytest.raises(Unavailable, match="cannot fetch the document: HTTP 401"):
            await alm.fetch_document()
    assert len(api.asked(TOKEN)) == 6
    api.always(CONFIG, None)
    assert await alm.fetch_document()


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_refused_login_says_so_and_never_drops_a_status(
    api: ScriptedApi, alm: AlmApi, status: int
):
    api.always(TOKEN, reply(status, {"error": f"bad secret {SECRET}"}))
    text = rf"^cannot log in: the client secret was refused \(HTTP {status}\)$"
    with pytest.raises(LoginRefused, match=text):
        await alm.post(UPTODATE)
    results = await asyncio.gather(
        *(alm.fetch_document() for _ in range(9)), return_exceptions=True
    )
    assert all(isinstance(result, LoginRefused) for result in results)
    assert len(api.requests) == 2  # the nine shared one login


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param("<html>welcome</html>", id="html"),
        pytest.param("", id="empty"),
        pytest.param([], id="a list"),
        pytest.param({"token_type": "Bearer"}, id="no token"),
        pytest.param({"access_token": ""}, id="empty token"),
        pytest.param({"access_token": "a\r\nX: y"}, id="line break in token"),
        pytest.param({"access_token": "a", "token_type": "MAC"}, id="another kind of token"),
        pytest.param({"access_token": ["a"]}, id="a list as token"),
        pytest.param({"access_token": "a" * 20000}, id="huge token"),
    ],
)
async def test_an_odd_answer_to_the_login_is_no_token(
    api: ScriptedApi, alm: AlmApi, answer: object
):
    api.script(TOKEN, reply(200, answer))
    with pytest.raises(Unavailable, match=r"^cannot log in: "):
        await alm.fetch_document()
    assert await alm.fetch_document()


@pytest.mark.parametrize("odd", [None, "soon", -5, 0, True, [], "3600", 1e300])
async def test_an_odd_lifetime_does_not_make_a_login_of_every_call(
    api: ScriptedApi, alm: AlmApi, odd: object
):
    api.expires_in = odd
    await alm.fetch_document()
    await alm.fetch_document()
    assert api.issued == 1


# --- the document --------------------------------------------------------------------------------


async def test_an_unchanged_document_is_not_sent_again(api: ScriptedApi, alm: AlmApi):
    api.etag = '"v1"'
    assert await alm.fetch_document() is not None
    assert await alm.fetch_document() is None
    api.document, api.etag = {"image": "app:2"}, 'W/"v2"'
    assert await alm.fetch_document() == b'{"image": "app:2"}'
    assert await alm.fetch_document() is None
    alm.forget_document()
    assert await alm.fetch_document() == b'{"image": "app:2"}'


async def test_a_304_that_nobody_asked_for_is_no_answer(api: ScriptedApi, alm: AlmApi):
    api.script(CONFIG, reply(304))
    with pytest.raises(Unavailable, match="HTTP 304"):
        await alm.fetch_document()


@pytest.mark.parametrize("body", [b"", b" \n", b"{}", b"[]", b"null", b'"text"', b"17"])
async def test_what_the_document_means_is_not_judged_here(
    api: ScriptedApi, alm: AlmApi, body: bytes
):
    api.script(CONFIG, reply(200, body, {"Content-Type": "text/html; charset=utf-16"}))
    assert await alm.fetch_document() == body.strip()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(reply(200, "<html><body>maintenance</body></html>"), id="html"),
        pytest.param(reply(200, '{"image": '), id="half"),
        pytest.param(reply(200, "[" * 100_000), id="deep nesting"),
        pytest.param(reply(200, '{"updated": NaN}'), id="NaN"),
        pytest.param(reply(200, '{"updated": 1e999}'), id="infinite number"),
        pytest.param(reply(200, '{"updated": ' + "9" * 5000 + "}"), id="5000 digits"),
        pytest.param(reply(200, b'{"image": "\xe9"}'), id="latin-1"),
        pytest.param(reply(200, '{"image": "app"}'.encode("utf-16")), id="utf-16"),
        pytest.param(gzip_bomb(), id="gzip bomb"),
        pytest.param(reply(200, b"\x1f\x8b" + bytes(99)), id="unlabelled gzip"),
        pytest.param(reply(200, b'"' + b"x" * 10_000_000 + b'"'), id="10 MB"),
        pytest.param(endless(), id="endless"),
        pytest.param(cut(), id="cut before the answer"),
        pytest.param(cut(b"HTTP/1.1 200"), id="cut in the status line"),
        pytest.param(cut(b"HTTP/1.1 200 OK\r\n"), id="cut after the status line"),
        pytest.param(cut(b"HTTP/1.1 200 OK\r\nContent-Le"), id="cut in a header"),
        pytest.param(cut_body(), id="cut in the body"),
        pytest.param(cut(head("Content-Length: 500")), id="cut before the body"),
        pytest.param(
            cut(head("Content-Length: 500") + b"{}"), id="cut after what is whole by itself"
        ),
        pytest.param(cut(head("Content-Length: 9" + "9" * 30) + b"{}"), id="a length beyond all"),
        pytest.param(cut(head("Transfer-Encoding: chunked") + b"-1\r\n{}"), id="a negative chunk"),
        pytest.param(
            cut(head("Transfer-Encoding: chunked") + b"f" * 20 + b"\r\n"), id="a huge chunk"
        ),
        pytest.param(cut(head("<html>") + b"{}"), id="a head that is none"),
        pytest.param(cut(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"), id="not HTTP"),
        pytest.param(cut(b"HTTP/1.1 200 OK\r\nX: " + b"h" * 200_000), id="endless header"),
        pytest.param(reply(500), id="500"),
    ],
)
async def test_a_bad_answer_is_unavailable_and_the_next_poll_recovers(
    api: ScriptedApi, alm: AlmApi, answer: Behaviour
):
    await alm.fetch_document()
    # Twice: a GET on a kept connection that is cut is asked again at once, by HTTP's own rule.
    api.script(CONFIG, answer, answer)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Unavailable, match=r"^cannot fetch the document: ") as caught:
        await alm.fetch_document()
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 64 * 1024  # KiB
    api._scripts.clear()
    assert await alm.fetch_document()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(silence(), id="silence"),
        pytest.param(drip(b'{"image": "app"}', gap=1.0), id="a byte a second"),
        pytest.param(reply(200, delay=30), id="late"),
    ],
)
async def test_a_call_ends_at_its_deadline(api: ScriptedApi, answer: Behaviour):
    async with client(api, timeout=0.4) as alm:
        await alm.fetch_document()
        api.script(CONFIG, answer)
        started = time.monotonic()
        with pytest.raises(Unavailable, match=r"no answer within 0\.4 s"):
            await alm.fetch_document()
        assert time.monotonic() - started < 1.0
        assert await alm.fetch_document()


async def test_a_login_that_hangs_ends_with_the_deadline_of_the_call(api: ScriptedApi):
    async with client(api, timeout=1) as alm:
        api.script(TOKEN, silence())
        results = await asyncio.gather(
            *(alm.fetch_document() for _ in range(3)), return_exceptions=True
        )
        assert all(isinstance(result, Unavailable) for result in results)
        assert await alm.fetch_document()
    assert len(api.asked(TOKEN)) == 2


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7), ("0", 1), ("99999", 600), ("soon", None), (None, None)]
)
async def test_retry_after_is_handed_on(
    api: ScriptedApi, alm: AlmApi, status: int, value: str | None, seconds: float | None
):
    answer = reply(status, headers={"Retry-After": value} if value else {})
    api.script(CONFIG, answer)
    with pytest.raises(Unavailable) as caught:
        await alm.fetch_document()
    assert caught.value.retry_after == seconds
    api.script(AGENT_STATUS, answer)
    with pytest.raises(Unavailable) as caught:
        await alm.post(UPTODATE)
    assert caught.value.retry_after == seconds


# --- metrics -------------------------------------------------------------------------------------


async def test_every_request_is_counted(api: ScriptedApi):
    calls: list[tuple[str, str]] = []
    async with client(api, on_call=lambda name, outcome, _s: calls.append((name, outcome))) as alm:
        api.script(CONFIG, reply(503))
        with pytest.raises(Unavailable):
            await alm.fetch_document()
        await alm.post(UPTODATE)
        await api.stop()
        with pytest.raises(Unavailable):
            await alm.post(ContainerStatus("c", "running"))
        await api.start()
    assert calls == [
        ("access_token", "200"),
        ("config", "503"),
        ("agent_status", "202"),
        ("container_status", "failed"),
    ]

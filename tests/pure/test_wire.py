"""The rules of requests and answers; what they do on a real socket is in the contract tests."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from almagent.core import wire
from almagent.core.model import AgentStatus, AgentWord, ContainerStatus, Secret

WHO = wire.Identity("stack", "agent")
NOW = 1_800_000_000.0


def answer(status: int = 200, body: bytes = b"", **headers: str) -> wire.Answer:
    labels = {name.replace("_", "-"): value for name, value in headers.items()}
    return wire.Answer(status, labels, body, NOW)


def test_the_secret_is_in_no_repr():
    request = wire.login("id", Secret("canary"))
    assert b"canary" in (request.body or b"")
    assert "canary" not in repr(request)


@pytest.mark.parametrize("word", list(AgentWord))
def test_agent_words_are_the_apis_own(word: AgentWord):
    request = wire.say(AgentStatus(word, "why"), WHO)
    assert request.path == "/v3/alm/agent/agent_status"
    assert json.loads(request.body or b"") == {
        "stack_id": "stack",
        "agent_id": "agent",
        "status": word.value,
        "message": "why",
    }


def test_a_status_is_cut_to_what_the_wire_takes():
    fitted = wire.fitted(AgentStatus(AgentWord.ERROR, "é\udc80" + "x" * 600))
    assert isinstance(fitted, AgentStatus)
    assert fitted.message == "é?" + "x" * 510
    assert wire.fitted(fitted) == fitted
    container = wire.fitted(ContainerStatus("c" * 64, "w" * 99, own=False))
    assert container == ContainerStatus("c" * 64, "w" * 64, own=False)


def test_a_document_keeps_its_bytes():
    body = ' {"image": "á"}\n'.encode()
    document = wire.read_document(answer(body=body, etag='"1"'), conditional=False)
    assert document == wire.Document(body.strip(), '"1"')


@pytest.mark.parametrize("etag", ["", "x" * 2000, "bell\x07", "é"])
def test_an_etag_that_cannot_be_sent_back_is_not_kept(etag: str):
    document = wire.read_document(answer(body=b"{}", etag=etag), conditional=False)
    assert document == wire.Document(b"{}", "")


def test_a_byte_order_mark_is_no_reason_to_refuse():
    assert wire.read_document(answer(body=b"\xef\xbb\xbf{}"), conditional=False)


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://user:pw@other.test:8443/x?token=1", " to https://other.test,"),
        ("/relative", "HTTP 302,"),
        ("http://[bad", "HTTP 302,"),
        ("", "HTTP 302,"),
    ],
)
def test_a_redirect_is_shown_without_secrets(location: str, shown: str):
    with pytest.raises(wire.WireError) as caught:
        wire.read_acknowledgement(answer(302, location=location), "report error")
    assert shown in str(caught.value)
    assert not caught.value.final


@given(st.binary())
def test_any_body_is_a_document_or_a_wire_error(body: bytes):
    for read in (wire.read_token, lambda a: wire.read_document(a, conditional=True)):
        try:
            read(answer(body=body))
        except wire.WireError as error:
            assert str(error).startswith("cannot ")

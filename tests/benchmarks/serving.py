"""An agent that serves: the situation in which its cost is measured."""

from __future__ import annotations

import os
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.peers import leaks
from tests.peers.agent import Agent
from tests.peers.api import ScriptedApi
from tests.peers.apps import app
from tests.peers.docker_engine import connect
from tests.peers.gitserver import make_certificate
from tests.peers.images import Images
from tests.peers.registry import registry
from tests.scenario.releases import document


@asynccontextmanager
async def serving_agent(
    directory: Path, certificate: Path, **settings: Mapping[str, object]
) -> AsyncIterator[Agent]:
    """It has deployed an image, and polls an API over TLS each 30 s."""
    engine, session = connect(), secrets.token_hex(4)
    os.environ[leaks.MARK] = session
    images = Images(engine, session)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, certificate.with_name("key.pem"))
    async with ScriptedApi(tls=tls) as api:
        api.etag = '"v1"'
        agent = Agent(directory, api, f"test-{session}", engine)
        agent.configure(api={"poll_interval": 30, "ca_file": str(certificate)}, **settings)
        try:
            (directory / "registry").mkdir()
            with registry(engine, directory / "registry") as running:
                api.document = document(running.push(app(images), "idle:1"), free_port())
                await agent.start()
                await agent.until_told("uptodate")
                yield agent
        finally:
            await agent.clean_up()
            leaks.clear(session)
            engine.close()


def certificate_in(directory: Path) -> Path:
    """For 127.0.0.1; its key is beside it, and git is told to trust it."""
    certificate = make_certificate(directory)
    os.environ["GIT_SSL_CAINFO"] = str(certificate)
    return certificate


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        number: int = sock.getsockname()[1]
        return number

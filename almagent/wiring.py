"""From settings to concrete adapters, for the daemon and for the commands that look without it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from almagent import __version__
from almagent.adapters import router as nft
from almagent.adapters.calls import OnCall, uncounted
from almagent.adapters.engine import DockerEngine
from almagent.adapters.router import NftRouter
from almagent.adapters.store import peek
from almagent.core.cast import Policy, Strategy
from almagent.journal import logger
from almagent.ports import PortError, Refused, Store
from almagent.settings import Settings
from almagent.state import Place, Role, State, boot_id, role_in

if TYPE_CHECKING:
    from almagent.adapters.api import AlmApi
    from almagent.adapters.metadata import Cloud
    from almagent.adapters.source import GitSourceAdapter

log = logger()


def make_engine(s: Settings, on_call: OnCall = uncounted) -> DockerEngine:
    return DockerEngine(
        host=s.docker.host,
        stack_id=s.stack_id,
        flag=s.flag,
        user_id=s.user_id,
        state_dir=s.state_dir,
        log_driver=s.docker.log_driver,
        log_opts=s.docker.log_opts,
        min_free_bytes=s.docker.min_free_bytes,
        keep_images=s.docker.keep_images,
        on_call=on_call,
    )


def make_state(s: Settings, store: Store) -> State:
    role = Role(s.stack_id, s.flag)
    return State(store, boot_id(), role, drain_on_rebalance=s.cloud.on_rebalance == "drain")


def make_source(s: Settings) -> GitSourceAdapter:
    from almagent.adapters.source import GitSourceAdapter  # noqa: PLC0415  a preview fetches nothing

    return GitSourceAdapter(
        state_dir=s.state_dir,
        runtime_dir=s.runtime_dir,
        known_hosts_file=s.git.known_hosts_file,
        timeout=s.git.timeout,
        keep_releases=s.deploy.keep_releases,
    )


def make_api(
    s: Settings,
    *,
    agent_id: str = "",
    instance_id: str = "",
    on_call: OnCall = uncounted,
    brief: bool = False,
) -> AlmApi:
    """Without `agent_id` it can ask, but not report. `brief`: for a command that asks once and ends."""
    from almagent.adapters.api import AlmApi  # noqa: PLC0415  a preview of a given document needs no HTTP

    return AlmApi(
        url=s.api.url,
        client_id=s.api.client_id,
        client_secret=s.api.client_secret,
        stack_id=s.stack_id,
        flag=s.flag,
        agent_id=agent_id,
        instance_id=instance_id,
        timeout=s.api.timeout,
        ca_file=str(s.api.ca_file or ""),
        user_agent=f"almagent/{__version__}",
        on_call=on_call,
        brief=brief,
    )


async def choose_strategy(
    s: Settings,
    engine: DockerEngine,
    unsupported: Callable[[str], Awaitable[str | None]] = nft.supported,
) -> tuple[Strategy, NftRouter | None]:
    """`unsupported` tells why nftables cannot be used on this host, None: it can.

    Recreate needs a router only where switch was used before and has left its rules. Raises Refused: switch
    is demanded and impossible.
    """
    table = table_name(s.stack_id, s.flag)
    router = NftRouter(table=table, bridge=lambda: engine.bridge_name)
    if s.deploy.strategy != "recreate":
        reason = await unsupported(table)
        if reason is None:
            return Strategy.SWITCH, router
        if s.deploy.strategy == "switch":
            raise Refused(f"cannot use deploy.strategy switch: {reason}")
        log.warning("strategy.recreate", reason=reason)
    return Strategy.RECREATE, router if await router.has_rules() else None


def policy(s: Settings, strategy: Strategy) -> Policy:
    return Policy(
        strategy=strategy,
        ready_timeout=s.deploy.ready_timeout,
        drain_timeout=s.deploy.drain_timeout,
        stop_timeout=s.deploy.stop_timeout,
        bake_time=s.deploy.bake_time,
    )


async def detect_cloud(
    s: Settings, known: Place, on_call: OnCall = uncounted
) -> tuple[Cloud | None, str]:
    """The cloud, and this instance's id in it, "" if unknown. `known`: what was found before.

    Bounded: an instance must serve soon.
    """
    from almagent.adapters import metadata as clouds  # noqa: PLC0415  likewise

    deadline = asyncio.get_running_loop().time() + clouds.DETECTION
    provider, endpoint = s.cloud.provider, s.cloud.endpoint
    found = await clouds.detect(provider, endpoint, known=known.cloud, on_call=on_call)
    if found is None:
        return None, ""
    try:
        async with asyncio.timeout_at(deadline):
            return found, await found.instance_id()
    except (PortError, TimeoutError) as exc:
        log.warning("metadata.no_instance_id", cloud=found.name, reason=str(exc) or "no answer")
        return found, known.instance_id if known.cloud == found.name else ""


def former_role(s: Settings) -> Settings | None:
    """The settings with the stack and flag that `state_dir` was last used for; None: no others."""
    role = role_in(peek(s.state_dir / "state.json"))
    if role in {None, Role(s.stack_id, s.flag)}:
        return None
    return replace(s, **role._asdict())


def table_name(stack_id: str, flag: str) -> str:
    """Of the nftables table; several agents may live on one host."""
    return f"almagent_{hashlib.sha256(f'{stack_id}/{flag}'.encode()).hexdigest()[:8]}"

"""The story: register, deploy, update under load, two bad releases, and the instance is taken away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from almagent.demo import app
from almagent.demo.cloud import INSTANCE_ID
from almagent.demo.errors import DemoError
from almagent.demo.load import Client, Load, Unanswered
from almagent.demo.stage import Stage
from almagent.demo.table import rendered

FIRST, SECOND, THIRD = "This is the first page.", "This is the second page.", "This is page three."


async def tell(stage: Stage, look_around: Callable[[Stage], Awaitable[None]] | None) -> None:
    """`look_around` comes when all is well and before the instance goes. Raises DemoError, PortError."""
    await register(stage)
    await deploy(stage)
    await update_under_load(stage)
    await refuse_what_does_not_start(stage)
    await switch_back_what_falls_over(stage)
    await repair(stage)
    if look_around is not None:
        await look_around(stage)
    await leave_on_spot_notice(stage)
    show_status_calls(stage)


async def register(stage: Stage) -> None:
    stage.screen.heading("Register: the agent says that it is there")
    pid = await stage.agent.start()
    stage.screen.tick(f"process {pid}, settings {stage.agent.config}, log {stage.agent.log}")
    call = await stage.hear("starting")
    if call.report.instance_id != INSTANCE_ID:
        raise DemoError(f"cannot see instance {INSTANCE_ID} in the agent's first call")
    await stage.hear("notice")


async def deploy(stage: Stage) -> None:
    stage.screen.heading("Deploy: a template gets a container section")
    before = await stage.release(app.good(FIRST), "hello")
    await stage.see(f"{FIRST} GREETING is: hello")
    await stage.hear("uptodate", before)


async def update_under_load(stage: Stage) -> None:
    stage.screen.heading("Update: other code, other environment, clients all the while")
    old = stage.serving()
    async with Load(stage.url) as load:
        before = await stage.release(app.good(SECOND), "good evening")
        await stage.see(f"{SECOND} GREETING is: good evening")
        await stage.hear("uptodate", before)
        await stage.hear("terminated", before, old)
    show_load(stage, load)


async def refuse_what_does_not_start(stage: Stage) -> None:
    stage.screen.heading("A bad release: it does not start, and never gets a request")
    async with Load(stage.url) as load:
        before = await stage.release(app.that_does_not_start(), "never seen")
        await stage.hear("error", before)
        await stage.see(SECOND)
    show_load(stage, load)


async def switch_back_what_falls_over(stage: Stage) -> None:
    stage.screen.heading("A worse one: it looks ready, falls over, and is rolled back")
    old = stage.serving()
    before = await stage.release(app.that_falls_over(), "never seen")
    new = await stage.until("the release gets the traffic", lambda: _another_serves(stage, old))
    stage.screen.tick(f"container {new[:12]} has the traffic")
    await stage.page()  # this request is what it does not survive
    await stage.hear("error", before)
    await stage.see(SECOND)


async def repair(stage: Stage) -> None:
    stage.screen.heading("The repair is deployed")
    before = await stage.release(app.good(THIRD), "good night")
    await stage.see(f"{THIRD} GREETING is: good night")
    await stage.hear("uptodate", before)


async def leave_on_spot_notice(stage: Stage) -> None:
    stage.screen.heading("A spot notice: the instance goes away in two minutes")
    serving = stage.serving()
    long_request = asyncio.create_task(_request_of_four_seconds(stage))
    await asyncio.sleep(0.5)  # it is to be under way
    before = stage.heard()[-1].id
    stage.cloud.give_notice()
    await stage.hear("spot_terminate", before)
    if trouble := await long_request:
        raise DemoError(f"cannot see the answer to the request that was under way: {trouble}")
    stage.screen.tick("a request of four seconds that was under way was answered")
    await stage.hear("terminated", before, serving)
    await stage.until("no container is left", lambda: _nothing_serves(stage))
    stage.screen.tick("no container is left, nothing answers any more")
    await stage.agent.stop()
    if (end := stage.agent.how_it_ended()) != "with exit code 0":
        raise DemoError(f"cannot stop the agent in good order: it ended ({end})")
    stage.screen.tick("the agent has ended in good order")


def show_load(stage: Stage, load: Load) -> None:
    """Raises DemoError when a request was lost."""
    for tally in load.tallies:
        stage.screen.tick(f"{tally.name}: {tally.sent} requests, {tally.failed} lost")
    lost = next((tally for tally in load.tallies if tally.failed), None)
    if lost is not None:
        raise DemoError(f"cannot see every request answered ({lost.name}): {lost.first_failure}")


def show_status_calls(stage: Stage) -> None:
    stage.screen.heading("The status calls that the control plane received")
    stage.screen.text(rendered(stage.heard(), stage.begun, stage.screen.width))


async def _nothing_serves(stage: Stage) -> bool:
    return not await stage.page() and not await stage.containers()


async def _another_serves(stage: Stage, old: str) -> str:
    new = stage.serving()
    return "" if new == old else new


async def _request_of_four_seconds(stage: Stage) -> str:
    """Why it was not answered, "" if it was."""
    try:
        await Client(stage.url, keep_alive=False).get("/slow/4")
    except Unanswered as exc:
        return str(exc)
    return ""

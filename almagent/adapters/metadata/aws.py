"""Amazon EC2.

Sources, all in the AWS documentation: "Use the Instance Metadata Service to access instance metadata"
(tokens, base URL), "Spot Instance interruption notices" (spot/instance-action), "EC2 instance rebalance
recommendations" (events/recommendations/rebalance), "Scheduled events for your instances"
(events/maintenance/scheduled), "Retrieve the target lifecycle state through instance metadata"
(autoscaling/target-lifecycle-state).
"""

from __future__ import annotations

import re

from almagent.adapters.calls import OnCall, uncounted
from almagent.adapters.metadata.client import TIMEOUT, Client
from almagent.adapters.metadata.reading import (
    Notices,
    Watchlist,
    at,
    decoded,
    each,
    field,
    iso_time,
    known,
    mail_time,
    understand,
)
from almagent.adapters.metadata.session import Session
from almagent.core.notices import REBALANCE
from almagent.ports import Notice, Unavailable

BASE = "http://169.254.169.254"
INSTANCE_ID = "/latest/meta-data/instance-id"
SPOT = "/latest/meta-data/spot/instance-action"
RECOMMENDATION = "/latest/meta-data/events/recommendations/rebalance"
MAINTENANCE = "/latest/meta-data/events/maintenance/scheduled"
AUTOSCALING = "/latest/meta-data/autoscaling/target-lifecycle-state"

ID = re.compile(r"i-[0-9a-f]{8,17}")
LONG_ID = re.compile(r"i-[0-9a-f]{17}")

SPOT_ACTIONS = {"terminate", "stop", "hibernate"}
EVENT_CODES = {
    "instance-reboot",
    "system-reboot",
    "system-maintenance",
    "instance-retirement",
    "instance-stop",
}
EVENT_STATES = {"active", "completed", "canceled"}
LEAVING = {"Terminated", "Warmed:Terminated"}
STAYING = {
    "Detached",
    "InService",
    "Standby",
    "Warmed:Hibernated",
    "Warmed:Running",
    "Warmed:Stopped",
}


class Aws:
    """The notices and the identity of an EC2 instance, by IMDSv2 wherever it exists."""

    name = "aws"
    makers = ("amazon",)
    long_poll = False

    def __init__(
        self, base: str = "", *, timeout: float = TIMEOUT, on_call: OnCall = uncounted
    ) -> None:
        self._session = Session(
            Client(base or BASE, timeout=timeout, on_call=on_call), "X-aws-ec2-metadata-token"
        )
        self._watchlist = Watchlist(
            self._spot, self._rebalance, self._autoscaling, seldom=self._maintenance
        )
        self.longest_call = 4 * timeout  # a token and a read, and both again after a 401

    async def recognise(self) -> bool:
        """Other clouds copy version 1 of the service, and OpenStack gives ids of 8 digits there."""
        text = await self._session.read(INSTANCE_ID) or ""
        return bool((LONG_ID if self._session.plain else ID).fullmatch(text))

    async def instance_id(self) -> str:
        text = await self._session.read(INSTANCE_ID) or ""
        if not ID.fullmatch(text):
            raise Unavailable(f"cannot read {INSTANCE_ID}: what is there is no EC2 instance id")
        return text

    async def notices(self) -> Notices:
        return await self._watchlist.poll()

    async def _spot(self) -> Notices:
        return understand(SPOT, await self._session.read(SPOT), spot)

    async def _rebalance(self) -> Notices:
        return understand(RECOMMENDATION, await self._session.read(RECOMMENDATION), rebalance)

    async def _maintenance(self) -> Notices:
        return understand(MAINTENANCE, await self._session.read(MAINTENANCE), maintenance)

    async def _autoscaling(self) -> Notices:
        return understand(AUTOSCALING, await self._session.read(AUTOSCALING), autoscaling)


def spot(text: str) -> Notices:
    """{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"""
    document = decoded(text)
    action = known(field(document, "action"), SPOT_ACTIONS)
    deadline = iso_time(field(document, "time"))
    return (Notice("aws/spot", terminal=True, what=f"{action} {at(deadline)}", deadline=deadline),)


def rebalance(text: str) -> Notices:
    """{"noticeTime": "2020-10-27T08:22:00Z"}: when the risk was seen, not when something happens."""
    issued = iso_time(field(decoded(text), "noticeTime"))
    what = f"rebalance recommended {at(issued)}"
    return (Notice(f"aws/{REBALANCE}", terminal=False, what=what, deadline=issued),)


def maintenance(text: str) -> Notices:
    """[{"EventId": "instance-event-...", "Code": "system-reboot", "State": "active", "NotBefore": "21 Jan 2019 09:00:43 GMT", ...}]"""
    document = decoded(text)
    if not isinstance(document, list):
        raise ValueError("no list of events")  # noqa: TRY004  (what came from outside is a value)
    return each(document, _scheduled)


def _scheduled(event: object) -> Notices:
    if known(field(event, "State"), EVENT_STATES) != "active":
        return ()
    code = known(field(event, "Code"), EVENT_CODES)
    begins = mail_time(field(event, "NotBefore"))
    key = f"aws/maintenance/{field(event, 'EventId')}"
    return (Notice(key, terminal=False, what=f"{code} {at(begins)}", deadline=begins),)


def autoscaling(text: str) -> Notices:
    """One word. The group tells no time: its lifecycle hook decides how long the instance waits."""
    if known(text, LEAVING | STAYING) in STAYING:
        return ()
    what = f"terminate {at(None)}, by its Auto Scaling group"
    return (Notice("aws/autoscaling", terminal=True, what=what),)

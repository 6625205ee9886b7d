"""Microsoft Azure.

Sources, all in the Azure documentation: "Azure Instance Metadata Service" (base URL, the Metadata
header, compute/vmId, compute/name), "Azure Metadata Service: Scheduled Events for Linux VMs".
"""

from __future__ import annotations

import re

from almagent.adapters.calls import OnCall, uncounted
from almagent.adapters.metadata.client import LARGE, TIMEOUT, Client
from almagent.adapters.metadata.reading import (
    Notices,
    at,
    decoded,
    each,
    field,
    items,
    known,
    mail_time,
    understand,
    whole_number,
)
from almagent.ports import Notice, Unavailable

BASE = "http://169.254.169.254"
HEADERS = {"Metadata": "true"}
VM_ID = "/metadata/instance/compute/vmId"
VM_NAME = "/metadata/instance/compute/name"
LEAF = "?api-version=2021-02-01&format=text"
EVENTS = "/metadata/scheduledevents"
VERSION = "?api-version=2020-07-01"

ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
TERMINAL = {"Preempt", "Terminate"}
PASSING = {"Reboot", "Redeploy", "Freeze"}


class Azure:
    """The notices and the identity of an Azure VM.

    The first call of its life may be answered only after up to two minutes, while Azure switches
    Scheduled Events on for the VM; until then the notices are unknown, and asking switches them on.
    """

    name = "azure"
    makers = ()  # Microsoft's name is on every Hyper-V machine
    long_poll = False

    def __init__(
        self, base: str = "", *, timeout: float = TIMEOUT, on_call: OnCall = uncounted
    ) -> None:
        self._client = Client(base or BASE, timeout=timeout, on_call=on_call)
        self._vm_name = ""
        self.longest_call = 2 * timeout

    async def recognise(self) -> bool:
        return bool(await self.instance_id())

    async def instance_id(self) -> str:
        text = await self._leaf(VM_ID)
        if not ID.fullmatch(text):
            raise Unavailable(f"cannot read {VM_ID}: what is there is no VM id")
        return text

    async def notices(self) -> Notices:
        """Events go to all VMs of a set; those count whose Resources name this one."""
        if not self._vm_name:
            self._vm_name = await self._own_name()
        answer = await self._client.get(EVENTS + VERSION, headers=HEADERS, cap=LARGE)
        return understand(EVENTS, answer.found(), self._events)

    async def _own_name(self) -> str:
        text = await self._leaf(VM_NAME)
        if not re.fullmatch(r"[\w.-]{1,128}", text):
            raise Unavailable(f"cannot read {VM_NAME}: what is there is no VM name")
        return text

    async def _leaf(self, path: str) -> str:
        answer = await self._client.get(path + LEAF, headers=HEADERS)
        return answer.found() or ""

    def _events(self, text: str) -> Notices:
        """{"DocumentIncarnation": 1, "Events": [...]}; the number only says that something changed."""
        document = decoded(text)
        events = items(document, "Events")
        whole_number(document, "DocumentIncarnation")
        return each((event for event in events if self._concerns_us(event)), scheduled)

    def _concerns_us(self, event: object) -> bool:
        resources = event.get("Resources") if isinstance(event, dict) else None
        return isinstance(resources, list) and any(
            isinstance(name, str) and name.casefold() == self._vm_name.casefold()
            for name in resources
        )


def scheduled(event: object) -> Notices:
    """{"EventId": "602d...", "EventType": "Preempt", "EventStatus": "Scheduled", "NotBefore": "Mon, 19 Sep 2016 18:29:47 GMT", ...}

    NotBefore is empty once the event has started.
    """
    action = known(field(event, "EventType"), TERMINAL | PASSING)
    known(field(event, "EventStatus"), {"Scheduled", "Started"})
    not_before = field(event, "NotBefore")
    deadline = mail_time(not_before) if not_before else None
    return (
        Notice(
            f"azure/{field(event, 'EventId')}",
            terminal=action in TERMINAL,
            what=f"{action.lower()} {at(deadline)}",
            deadline=deadline,
        ),
    )

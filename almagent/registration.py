"""Making this host known: credentials proved, `starting` posted, and only then the settings written."""

from __future__ import annotations

import os
from pathlib import Path

from almagent.adapters.store import agent_id, replace
from almagent.core.model import AgentStatus, AgentWord
from almagent.ports import Unavailable
from almagent.settings import Settings
from almagent.state import Place
from almagent.wiring import detect_cloud, make_api


async def register(settings: Settings, file: Path, text: str) -> str:
    """The agent's id. Raises PortError; then `file` is as it was before."""
    _, instance_id = await detect_cloud(settings, Place())
    api = make_api(settings, instance_id=instance_id)
    try:
        await api.fetch_document()  # the credentials are proved before anything is left on the disk
        api.agent_id = agent_id(settings.state_dir, instance_id)
        _demand_writable(file)
        await api.post(AgentStatus(AgentWord.STARTING))
    finally:
        await api.close()
    try:
        replace(file, text.encode())
    except OSError as exc:
        raise Unavailable(f"cannot write {file}: {exc.strerror}") from exc
    return api.agent_id


def _demand_writable(file: Path) -> None:
    directory = file.parent
    while not directory.exists():
        directory = directory.parent
    if not os.access(directory, os.W_OK):
        raise Unavailable(f"cannot write {file}: {directory} is not writable")

"""Seals the chain through the audit log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from broker.flows.access.verify_audit import seal_audit
from broker.jobs.room import Job, Room
from broker.store.sealing import Sealer


async def seal_newest(room: Room) -> None:
    """Seal the newest link of the audit log."""
    settings = room.settings
    sealer = Sealer(settings.secret_key, settings.secret_keys_old)
    await seal_audit(room.engine, sealer, datetime.now(UTC))


JOBS: Final = (Job("broker.seal_audit", seal_newest, timedelta(minutes=1), 60),)

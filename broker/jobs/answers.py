"""Deletes kept answers whose time is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from broker.flows.calls.forget_answer import forget_expired
from broker.jobs.room import Job, Room


async def forget_answers(room: Room) -> None:
    """Delete the answers of calls that have expired."""
    await forget_expired(room.pool, datetime.now(UTC))


JOBS: Final = (Job("broker.forget_answers", forget_answers, timedelta(minutes=5), 300),)

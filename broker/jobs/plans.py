"""Counts what providers have sold, where the take depends on it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from celery.schedules import crontab

from broker.flows.money.count_sales import count_sales
from broker.jobs.room import SLOW, Job, Room


async def count_newest(room: Room) -> None:
    """Count the newest hours anew."""
    await count_sales(room.engine, datetime.now(UTC))


async def count_month(room: Room) -> None:
    """Count the whole month anew, so that no error stays."""
    await count_sales(room.engine, datetime.now(UTC), whole=True)


JOBS: Final = (
    Job("broker.count_sales", count_newest, timedelta(minutes=1), 60),
    Job(
        "broker.count_sales_of_month",
        count_month,
        crontab(minute="50", hour="3"),
        86_400,
        queue=SLOW,
    ),
)

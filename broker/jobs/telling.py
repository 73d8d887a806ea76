"""What is worked out for telling: invoices of the month that closed, counts of lost calls."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from celery.schedules import crontab

from broker.flows.money.invoice import issue_due
from broker.flows.providers.count_lost_calls import count_lost_calls, forget_lost_calls
from broker.jobs.room import SLOW, Job, Room

BATCH_ACCOUNTS: Final = 500


async def issue_invoices(room: Room) -> None:
    """Issue the invoices of the last closed month that nobody has read before."""
    while await issue_due(room.engine, datetime.now(UTC), BATCH_ACCOUNTS) == BATCH_ACCOUNTS:
        pass


async def count_lost(room: Room) -> None:
    """Fold the stories of calls that have ended."""
    await count_lost_calls(room.engine, datetime.now(UTC))


async def forget_lost(room: Room) -> None:
    """Delete what was counted long ago."""
    await forget_lost_calls(room.engine, datetime.now(UTC))


JOBS: Final = (
    Job(
        "broker.issue_invoices", issue_invoices, crontab(minute="40", hour="1"), 86_400, queue=SLOW
    ),
    Job("broker.count_lost_calls", count_lost, timedelta(seconds=30), 30),
    Job(
        "broker.forget_lost_calls", forget_lost, crontab(minute="50", hour="2"), 86_400, queue=SLOW
    ),
)

"""Compares receipts with calls, every few minutes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from broker.flows.receipts import reconcile
from broker.jobs.room import SLOW, Job, Room


async def reconcile_receipts(room: Room) -> None:
    """Open a case for each difference between what was billed and what was signed for."""
    await reconcile.reconcile(room.engine, datetime.now(UTC))


JOBS: Final = (
    Job("broker.reconcile_receipts", reconcile_receipts, timedelta(minutes=5), 300, queue=SLOW),
)

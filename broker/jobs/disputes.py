"""What consumers get without asking again: overdue disputes, and credits for missed promises."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from broker.flows.money.answer_dispute import decide_overdue
from broker.flows.money.credit_missed import credit_missed
from broker.jobs.room import SLOW, Job, Room

_log = structlog.get_logger()


async def decide_overdue_disputes(room: Room) -> None:
    """Decide for the consumer where a provider has not answered in time."""
    count = await decide_overdue(room.engine, datetime.now(UTC))
    if count:
        _log.info("disputes_overdue", count=count)


async def credit_missed_promises(room: Room) -> None:
    """Credit a share of the charge where a promised latency was missed."""
    share_bps = room.settings.recourse.sla_credit_bps
    count = await credit_missed(room.engine, share_bps, datetime.now(UTC))
    if count:
        _log.info("missed_promises_credited", calls=count)


JOBS: Final = (
    Job(
        "broker.decide_overdue_disputes",
        decide_overdue_disputes,
        timedelta(minutes=1),
        60,
        queue=SLOW,
    ),
    Job(
        "broker.credit_missed_promises",
        credit_missed_promises,
        timedelta(minutes=1),
        60,
        queue=SLOW,
    ),
)

"""Folds the stories of calls that have ended into counts of what endpoints served and lost.

It reads the call log a little behind the present, in bounded batches, each story once; the calls
themselves are not touched. A record that is written later than LAG after its call has ended, as
after an outage of the database, is passed over: these are counts to learn from, not money.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.lost import Fate, fates
from broker.core.story import decode
from broker.store import progress
from broker.store.calls import lost_calls
from broker.store.calls.lost_calls import EndedCall

JOB: Final = "lost_calls"
LAG: Final = timedelta(seconds=30)
BATCH_CALLS: Final = 1_000
BUDGET_S: Final = 8.0
"""No new batch is begun after this, for other jobs wait; the next time goes on where it stopped."""
KEPT_FOR: Final = timedelta(days=400)

_FIRST_LOOK: Final = timedelta(days=1)
_log = structlog.get_logger()


async def count_lost_calls(engine: AsyncEngine, now: datetime) -> int:
    """Fold what has ended since the last time, for about BUDGET_S; return how many calls.

    Several at once take turns: each batch is claimed under the lock of the job's progress.
    """
    folded, begun_s, count = 0, time.monotonic(), BATCH_CALLS
    while count == BATCH_CALLS and time.monotonic() < begun_s + BUDGET_S:
        count = await _fold(engine, now)
        folded += count
    return folded


async def forget_lost_calls(engine: AsyncEngine, now: datetime) -> int:
    """Delete counts older than KEPT_FOR; return how many rows."""
    async with engine.begin() as connection:
        return await lost_calls.forget(connection, now - KEPT_FOR)


async def _fold(engine: AsyncEngine, now: datetime) -> int:
    until = now - LAG
    async with engine.begin() as connection:
        since = await progress.claim(connection, JOB, now - _FIRST_LOOK)
        if since >= until:
            return 0
        ended = await lost_calls.read_ended(connection, since, until, BATCH_CALLS)
        count = len(ended)
        if count == BATCH_CALLS:
            # Others may have ended at the very time of the last: they are of the next batch.
            until = ended[-1].ended_at
            ended = [each for each in ended if each.ended_at < until]
        await lost_calls.add(connection, _counted(ended))
        await progress.move(connection, JOB, until)
    return count


def _counted(ended: list[EndedCall]) -> Counter[tuple[datetime, Fate]]:
    counts: Counter[tuple[datetime, Fate]] = Counter()
    for each in ended:
        hour = each.ended_at.replace(minute=0, second=0, microsecond=0)
        try:
            found = list(fates(decode(each.story)))
        except (msgspec.MsgspecError, ValueError) as error:
            _log.warning("story_unreadable", error=str(error))
            continue
        counts.update((hour, fate) for fate in found)
    return counts

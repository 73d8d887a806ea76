"""Keeps the books in order: sweeps, checks, seals, makes partitions, deletes what has expired."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from celery.schedules import crontab

from broker.flows.books.monitor import watch
from broker.flows.books.seal import seal_due
from broker.flows.books.sweep import open_orphaned_quotes, release_orphans, sweep_expired
from broker.flows.calls import forget_history as history
from broker.jobs.room import SLOW, Job, Room
from broker.store import late_indexes, maintenance

_log = structlog.get_logger()


async def sweep(room: Room) -> None:
    """Give back what is held for calls that nobody will settle."""
    async with room.engine.connect() as connection:
        now = await maintenance.time(connection)  # by which holds last
    await sweep_expired(room.pool, now)
    await release_orphans(room.pool)
    await open_orphaned_quotes(room.pool)


async def check_invariants(room: Room) -> None:
    """Fold the open period."""
    await _check(room, replay=False)


async def replay(room: Room) -> None:
    """Fold everything, which proves balances, seals, holds and budgets."""
    await _check(room, replay=True)


async def make_partitions(room: Room) -> None:
    """Make the partitions of this month and the two after it, and indexes that came after one."""
    await maintenance.ensure_partitions(room.engine, datetime.now(UTC).date())
    async with room.pool.acquire() as connection:
        await late_indexes.build(connection)


async def forget_evidence(room: Room) -> None:
    """Drop evidence of long ago."""
    before = datetime.now(UTC) - timedelta(days=room.settings.evidence_kept_days)
    async with room.engine.begin() as connection:
        dropped = await maintenance.drop_evidence(connection, before)
    if dropped:
        _log.info("evidence_dropped", months=dropped)


async def forget_history(room: Room) -> None:
    """Forget how calls of long ago were decided, and most prices of then, where that is wanted."""
    days = room.settings.history_kept_days
    if days is None:
        return
    until = history.kept_until(room.settings, days, datetime.now(UTC))
    forgotten = await history.forget(room.engine, until)
    if forgotten:
        _log.info("history_forgotten", months=forgotten)


async def seal_balances(room: Room) -> None:
    """Seal once a day, and each hour in which many calls were settled since."""
    await seal_due(room.engine, datetime.now(UTC))


async def clean_up(room: Room) -> None:
    """Delete expired idempotency keys, login links and sessions."""
    async with room.engine.begin() as connection:
        await maintenance.delete_expired(connection, datetime.now(UTC))


async def _check(room: Room, *, replay: bool) -> None:
    alarms = await watch(room.engine, datetime.now(UTC), replay=replay)
    room.alarms += len(alarms)
    for alarm in alarms:
        row = {name: str(value) for name, value in alarm.row.items()}
        _log.error("ledger_alarm", view=alarm.view, row=row, so_far=room.alarms)


JOBS: Final = (
    Job("broker.sweep", sweep, timedelta(seconds=5), 5),
    Job("broker.check_invariants", check_invariants, timedelta(minutes=1), 60),
    Job("broker.clean_up", clean_up, crontab(minute="17"), 3_600, queue=SLOW),
    Job(
        "broker.make_partitions",
        make_partitions,
        crontab(minute="10", hour="0"),
        86_400,
        queue=SLOW,
    ),
    Job(
        "broker.forget_evidence",
        forget_evidence,
        crontab(minute="15", hour="0"),
        86_400,
        queue=SLOW,
    ),
    Job(
        "broker.forget_history", forget_history, crontab(minute="45", hour="0"), 86_400, queue=SLOW
    ),
    Job("broker.seal_balances", seal_balances, crontab(minute="20"), 3_600, queue=SLOW),
    Job("broker.replay", replay, crontab(minute="30", hour="3"), 86_400, queue=SLOW),
)

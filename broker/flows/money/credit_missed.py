"""Credits consumers where an endpoint missed the latency that it had promised.

It reads what was settled an hour ago or more, when nothing can be dated behind it any more (see
`broker.flows.books.seal`), in bounded batches. Each call is credited once, in a transaction of its
own; the mark of how far the job has come moves after the credits, so a job that died does them
again and finds them done.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.money.promise import Missed, credit_nanos, missed
from broker.core.money.refund import left_of
from broker.core.story import decode
from broker.errors import BrokerError
from broker.flows.books.seal import AGE_MIN
from broker.flows.money.refund import Order, give_back, open_call
from broker.store import maintenance, progress
from broker.store.books import credit_notes
from broker.store.books.transfers import TransferKind
from broker.store.calls import promises
from broker.store.calls.promises import Promised

JOB: Final = "sla_credits"
AUTHOR: Final = "broker"
BATCH_LINES: Final = 5_000
"""More than one commit of settlements holds, for all of it may bear one date."""
BUDGET_S: Final = 8.0
"""No new batch is begun after this, for other jobs wait; the next time goes on where it stopped."""

_FIRST_LOOK: Final = timedelta(days=1)
_TICK: Final = timedelta(microseconds=1)
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Late:
    """An attempt that is to be credited."""

    attempt: int
    amount_nanos: int
    missed: Missed


async def credit_missed(
    engine: AsyncEngine, share_bps: int, now: datetime, batch_lines: int = BATCH_LINES
) -> int:
    """Credit `share_bps` of the charge of each late attempt since the last time, for about
    BUDGET_S; return how many calls were credited."""
    credited, more, begun_s = 0, True, time.monotonic()
    while more and time.monotonic() < begun_s + BUDGET_S:
        count, more = await _next_batch(engine, share_bps, now, batch_lines)
        credited += count
    return credited


async def _next_batch(
    engine: AsyncEngine, share_bps: int, now: datetime, batch_lines: int
) -> tuple[int, bool]:
    """Return how many calls of the next batch were credited, and whether there may be more."""
    async with engine.begin() as connection:
        # By the database's clock too, for by that one settlements are dated.
        until = min(now, await maintenance.time(connection)) - AGE_MIN
        since = await progress.claim(connection, JOB, until - _FIRST_LOOK)
        if since >= until:
            return 0, False
        found = await promises.read_promised(connection, since, until, batch_lines)
    full = len(found) == batch_lines
    if full:
        # Others may have been settled at the very time of the last: they are of the next batch.
        until = max(found[-1].settled_at, since + _TICK)
        found = [each for each in found if each.settled_at < until]
    credited = 0
    for call_id, late in _late(found, share_bps).items():
        try:
            credited += await _credit(engine, call_id, late, now)
        except BrokerError as error:
            # One call that cannot be credited must not keep all others waiting.
            _log.error("missed_promise_not_credited", call=str(call_id), error=error.detail)
    async with engine.begin() as connection:
        await progress.move(connection, JOB, until)
    return credited, full


def _late(found: list[Promised], share_bps: int) -> dict[UUID, list[Late]]:
    late: defaultdict[UUID, list[Late]] = defaultdict(list)
    for each in found:
        attempts = decode(each.story).attempts
        if each.attempt >= len(attempts):
            continue
        miss = missed(
            attempts[each.attempt],
            stream=each.stream,
            ttft_ms=each.promised_ttft_ms,
            latency_ms=each.promised_latency_ms,
        )
        amount = credit_nanos(each.charge_nanos, share_bps)
        if miss is not None and amount:
            late[each.call_id].append(Late(each.attempt, amount, miss))
    return dict(late)


async def _credit(engine: AsyncEngine, call_id: UUID, late: list[Late], now: datetime) -> bool:
    """Credit one call, as far as its lines have not been given back already."""
    numbers = {each.attempt for each in late}
    async with engine.begin() as connection:
        call = await open_call(connection, call_id)
        if await credit_notes.has_sla_credit(connection, call_id):
            return False
        lines = tuple(each for each in call.lines if each.attempt in numbers)
        amount = min(sum(each.amount_nanos for each in late), left_of(lines))
        if not amount:
            return False
        order = Order(amount, _reason(late[0].missed), AUTHOR, now, TransferKind.SLA_CREDIT)
        await give_back(connection, replace(call, lines=lines), order)
    return True


def _reason(miss: Missed) -> str:
    return f"The {miss.what} came after {miss.took_ms:.0f} ms; {miss.promised_ms} ms were promised."

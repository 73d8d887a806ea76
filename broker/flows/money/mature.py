"""Lets earnings mature: what was settled long enough ago becomes available, debts are paid first.

    due = what stood in `earnings` at the last seal that is old enough - what has left it since

A provider's watermark is the moment of a seal, so that a run costs the same however many calls
there were, and builds on sums that are proved each night. It is moved under the row locks of the
purses, under which whoever takes money back reads it (`broker.store.money.recourse`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from uuid_utils.compat import uuid7

from broker.core.money.maturity import MaturityTerms, delay
from broker.errors import BrokerError
from broker.flows.books.seal import AGE_MIN
from broker.store.books import transfers
from broker.store.books.transfers import Transfer, TransferKind
from broker.store.money import maturity, purses, recourse
from broker.store.money.purses import Purses
from broker.store.webhooks import events
from broker.store.webhooks.events import Event
from pricing.money import format_usd

AUTHOR: Final = "maturity"
"""Who stands in the books for what happens by itself."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Matured:
    """What a run moved for one provider, nano-dollars."""

    matured_nanos: int
    recovered_nanos: int


async def mature_all(engine: AsyncEngine, terms: MaturityTerms, now: datetime) -> int:
    """Let every provider's earnings mature, each in its own transaction; return for how many."""
    async with engine.connect() as connection:
        waiting = await maturity.waiting(connection)
    count = 0
    for provider_id in waiting:
        try:
            done = await mature(engine, provider_id, terms, now)
        except (BrokerError, DBAPIError) as error:
            # One purse that cannot be moved must not keep all others waiting.
            _log.error("earnings_not_matured", provider=str(provider_id), error=str(error))
        else:
            count += done.matured_nanos > 0
    return count


async def mature(
    engine: AsyncEngine, provider_id: UUID, terms: MaturityTerms, now: datetime
) -> Matured:
    """Let one provider's earnings mature, and pay back what it owes. Raises NotFound."""
    async with engine.begin() as connection:
        wanted = await purses.purse_of(connection, provider_id)
        track = await maturity.read_track(connection, provider_id, terms, now)
        until = now - max(delay(track, terms), AGE_MIN)
        await purses.lock(connection, [wanted])
        matured_nanos = await _move(connection, wanted, until, now)
        return Matured(matured_nanos, await recover(connection, wanted, now))


async def recover(connection: AsyncConnection, wanted: Purses, now: datetime) -> int:
    """Pay back what the provider owes from what is available; return how much, nano-dollars.

    The caller has locked the purses.
    """
    contents = await purses.look_into(connection, wanted)
    amount_nanos = min(contents.available_nanos, contents.owed_nanos)
    if amount_nanos <= 0:
        return 0
    parts = (wanted.available, wanted.receivable, amount_nanos)
    transfer = _transfer(TransferKind.RECOVERY, parts, "owed since a refund", now)
    await transfers.post(connection, transfer)
    owed = format_usd(contents.owed_nanos - amount_nanos)
    payload = {"amount_usd": format_usd(amount_nanos), "still_owed_usd": owed}
    await _tell(connection, "earnings.recovered", wanted, payload, now)
    return amount_nanos


async def _move(connection: AsyncConnection, wanted: Purses, until: datetime, now: datetime) -> int:
    sealed = await maturity.sealed_until(connection, wanted.earnings, until)
    watermark = await recourse.matured_before(connection, wanted.provider_id)
    if sealed is None or (watermark is not None and sealed.sealed_before <= watermark):
        return 0
    contents = await purses.look_into(connection, wanted)
    if not 0 <= sealed.pending_nanos <= contents.pending_nanos:
        return 0  # An adjustment took from what was pending: later earnings make up for it.
    await maturity.set_watermark(connection, wanted.provider_id, sealed.sealed_before)
    if sealed.pending_nanos == 0:
        return 0
    before = sealed.sealed_before.isoformat()
    parts = (wanted.earnings, wanted.available, sealed.pending_nanos)
    transfer = _transfer(TransferKind.MATURITY, parts, f"earned before {before}", now)
    await transfers.post(connection, transfer)
    payload = {"amount_usd": format_usd(sealed.pending_nanos), "earned_before": before}
    await _tell(connection, "earnings.matured", wanted, payload, now)
    return sealed.pending_nanos


def _transfer(
    kind: TransferKind, parts: tuple[UUID, UUID, int], reason: str, now: datetime
) -> Transfer:
    debit, credit, amount_nanos = parts
    return Transfer(uuid7(), debit, credit, amount_nanos, kind, reason, AUTHOR, now)


async def _tell(
    connection: AsyncConnection,
    kind: str,
    wanted: Purses,
    payload: Mapping[str, object],
    now: datetime,
) -> None:
    target = f"accounts/{wanted.provider_id}"
    await events.tell(connection, Event(kind, target, wanted.provider_id, payload), now)

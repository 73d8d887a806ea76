"""Sends open payouts through a payment service, each once whatever dies when.

    note that it will be asked ─► ask ─► note what it said          no transaction spans the asking

A process that dies in between leaves the payout open; the next run asks again for the same payout,
and the adapter answers with what was paid then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.money.payout import CENT_NANOS
from broker.errors import BrokerError
from broker.flows.money import payout_events
from broker.flows.money.payout_events import Word
from broker.outbound.payout_adapter import (
    Order,
    Payment,
    PaymentRefused,
    PaymentUnclear,
    PayoutAdapter,
)
from broker.store.money import payout_terms, payouts
from broker.store.money.payouts import PayoutStatus
from broker.store.sealing import Sealer

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Sending:
    """What sending takes: the database, the key to the destinations, the service, a clock."""

    engine: AsyncEngine
    sealer: Sealer
    adapter: PayoutAdapter
    clock: Callable[[], datetime]


async def send_all(desk: Sending) -> int:
    """Ask the service for every open payout of its method; return how many it has paid."""
    async with desk.engine.connect() as connection:
        waiting = await payouts.to_send(connection, desk.adapter.method)
    return sum([await _send_or_tell(desk, each) for each in waiting])


async def _send_or_tell(desk: Sending, payout_id: UUID) -> bool:
    """What stops one payout, such as a destination that cannot be read, stops no other."""
    try:
        return await send(desk, payout_id)
    except BrokerError as error:
        _log.error("payout_not_sent", payout=str(payout_id), code=error.code, error=error.detail)
        return False


async def send(desk: Sending, payout_id: UUID) -> bool:
    """Ask the service for one payout; True when it is paid.

    What the service refuses has failed; what it leaves unclear stays open, to be asked again.
    Raises NotFound, SecretUnreadable, and Conflict where somebody confirmed what it refuses.
    """
    order = await _order(desk, payout_id)
    if order is None:
        return False
    method = desk.adapter.method.value
    try:
        payment = await desk.adapter.pay(order)
    except PaymentUnclear as error:
        _log.warning("payout_unclear", payout=str(payout_id), method=method, error=str(error))
        return False
    except PaymentRefused as error:
        word = Word(method, reason=str(error)[:500] or "refused", checked=True)
        async with desk.engine.begin() as connection:
            await payout_events.fail(connection, payout_id, word, desk.clock())
        return False
    async with desk.engine.begin() as connection:
        await _note(connection, payout_id, payment, Word(method), desk.clock())
    return True


async def came_back(
    connection: AsyncConnection, payout_id: UUID, reference: str, now: datetime
) -> None:
    """Note a service's word that a payout came back, even where its sending was not noted yet.

    Raises NotFound.
    """
    await _note(connection, payout_id, Payment(reference, reversed=True), Word("stripe"), now)


async def _order(desk: Sending, payout_id: UUID) -> Order | None:
    """Note that the service is about to be asked; None when there is nothing to ask any more."""
    async with desk.engine.begin() as connection:
        payout = await payouts.lock(connection, payout_id)
        if payout.status is not PayoutStatus.OPEN:
            return None
        await payouts.mark_submitted(connection, payout_id, desk.clock())
        places = await payout_terms.open_places(connection, [payout.place.id], desk.sealer)
    return Order(payout_id, payout.amount_nanos // CENT_NANOS, places[payout.place.id])


async def _note(
    connection: AsyncConnection, payout_id: UUID, payment: Payment, word: Word, now: datetime
) -> None:
    payout = await payouts.lock(connection, payout_id)
    if payout.status is PayoutStatus.FAILED and not payment.reversed:
        # Somebody said that it had been checked, while it was being paid.
        _log.error("payout_paid_after_it_failed", payout=str(payout_id), payment=payment.reference)
        return
    if payout.status is PayoutStatus.OPEN:
        sent = Word(word.author, reference=payment.reference)
        payout = await payout_events.confirm(connection, payout_id, sent, now)
    if payment.reversed:
        back = Word(word.author, "reversed by the service", payment.reference)
        await payout_events.give_back(connection, payout_id, back, now)

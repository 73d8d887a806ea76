"""Makes the payouts that are due by their providers' schedules, each in a transaction of its own.

So no provider waits for another's locks, and one that cannot be paid stays due and spoils nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.errors import BrokerError
from broker.flows.money.pay_out import Round, freeze, is_rested
from broker.store.money import payout_terms, purses
from broker.store.money.payouts import Payout

_LOOKED_UP: Final = 500
"""Providers read at once."""

_log = structlog.get_logger()


async def pay_out_due(engine: AsyncEngine, author: str, now: datetime) -> list[Payout]:
    """Pay every provider whose time has come; return the payouts.

    Who has too little, or nowhere to send it yet, waits for the next time, and so does who cannot
    be paid for an error, which is told in the log. Of two runs at one moment each pays others.
    """
    run, made, after = Round(author, now), list[Payout](), None
    while due := await _due(engine, now, after):
        for provider_id in due:
            try:
                payout = await _pay(engine, run, provider_id)
            except (BrokerError, DBAPIError) as error:
                _log.error("payout_not_made", provider=str(provider_id), error=str(error))
            else:
                made += [payout] if payout is not None else []
        after = due[-1]
    return made


async def _due(engine: AsyncEngine, now: datetime, after: UUID | None) -> list[UUID]:
    async with engine.connect() as connection:
        return await payout_terms.due(connection, now, after, _LOOKED_UP)


async def _pay(engine: AsyncEngine, run: Round, provider_id: UUID) -> Payout | None:
    async with engine.begin() as connection:
        terms = await payout_terms.lock_due(connection, provider_id, run.now)
        if terms is None:
            return None
        payout = None
        if is_rested(terms, run.now):
            held = await purses.purse_of(connection, provider_id)
            await purses.lock(connection, [held])
            payout = await freeze(connection, run, terms, held)
        await payout_terms.set_next(connection, terms, run.now)
        return payout

"""Tells a provider what it has earned: what waits until when, what can be paid, what is owed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.money.maturity import MaturityTerms, Trust, delay, trust
from broker.store.money import maturity, purses, recourse
from broker.store.money.purses import Contents, Purses


@dataclass(frozen=True, slots=True)
class Maturing:
    """What matures from a moment on, nano-dollars."""

    at: datetime
    amount_nanos: int


@dataclass(frozen=True, slots=True)
class Earnings:
    """The purses of a provider, and what happens next to what is pending.

    `disputed_nanos` is what of the available a dispute keeps from being paid out.
    """

    contents: Contents
    disputed_nanos: int
    trust: Trust
    delay: timedelta
    matured_before: datetime | None
    maturing: list[Maturing]


async def read_earnings(
    engine: AsyncEngine, provider_id: UUID, terms: MaturityTerms, now: datetime
) -> Earnings:
    """Return a provider's earnings. Raises NotFound for an account that is no provider."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        held = await purses.purse_of(connection, provider_id)
        contents = await purses.look_into(connection, held)
        track = await maturity.read_track(connection, provider_id, terms, now)
        watermark = await recourse.matured_before(connection, provider_id)
        wait = delay(track, terms)
        return Earnings(
            contents=contents,
            disputed_nanos=await maturity.disputed_nanos(connection, held, watermark),
            trust=trust(track, terms),
            delay=wait,
            matured_before=watermark,
            maturing=await _maturing(connection, held, contents, (watermark, wait, now)),
        )


async def _maturing(
    connection: AsyncConnection,
    held: Purses,
    contents: Contents,
    when: tuple[datetime | None, timedelta, datetime],
) -> list[Maturing]:
    """Return what each seal since the watermark will bring, and then what is in no seal yet."""
    watermark, wait, now = when
    told, before = [], 0
    for sealed in await maturity.sealed_after(connection, held.earnings, watermark):
        # What an adjustment took is taken from what was earned first.
        total = max(before, sealed.pending_nanos)
        if total > before:
            told.append(Maturing(max(sealed.sealed_before + wait, now), total - before))
        before = total
    if contents.pending_nanos > before:
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        told.append(Maturing(midnight + wait, contents.pending_nanos - before))
    return told

"""What each provider wants of its payouts, where they go, and what delay an operator has set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, Row, Select, and_, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.core.money.payout import Destination, Method, Schedule, method_of, next_due
from broker.store.sealing import Sealer
from broker.store.tables import table

SCHEDULE_DEFAULT: Final = Schedule.WEEKLY
THRESHOLD_DEFAULT_NANOS: Final = 10_000_000_000

payout_terms = table(
    "payout_terms",
    """
    provider_id uuid, schedule text, threshold_nanos bigint, destination_id uuid,
    next_at timestamptz, delay_days smallint, updated_at timestamptz
    """,
)
destinations = table(
    "payout_destinations",
    """
    id uuid, provider_id uuid, method text, sealed bytea, hint text, created_at timestamptz
    """,
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where payouts go, without what is secret of it."""

    id: UUID
    method: Method
    hint: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Terms:
    """What is agreed with a provider; `place` is None before it has named one."""

    provider_id: UUID
    schedule: Schedule = SCHEDULE_DEFAULT
    threshold_nanos: int = THRESHOLD_DEFAULT_NANOS
    place: Place | None = None
    next_at: datetime | None = None
    delay_days: int | None = None


async def read_terms(
    connection: AsyncConnection, provider_id: UUID, *, lock: bool = False
) -> Terms:
    """Return a provider's terms, the defaults where it has said nothing."""
    query = _terms().where(payout_terms.c.provider_id == provider_id)
    if lock:
        query = query.with_for_update(of=payout_terms)
    row = (await connection.execute(query)).one_or_none()
    return Terms(provider_id) if row is None else _read(row)


async def due(
    connection: AsyncConnection, now: datetime, after: UUID | None, limit: int
) -> list[UUID]:
    """Return up to `limit` providers whose payout is due, in the order of their ids, after one.

    Due is who is on a schedule whose time has come and has named a place.
    """
    query = select(payout_terms.c.provider_id).where(_is_due(now))
    if after is not None:
        query = query.where(payout_terms.c.provider_id > after)
    query = query.order_by(payout_terms.c.provider_id).limit(limit)
    return list((await connection.execute(query)).scalars())


async def lock_due(connection: AsyncConnection, provider_id: UUID, now: datetime) -> Terms | None:
    """Lock and return a provider's terms, None when it is not due any more or another run has
    locked them."""
    query = _terms().where(payout_terms.c.provider_id == provider_id, _is_due(now))
    locked = query.with_for_update(of=payout_terms, skip_locked=True)
    row = (await connection.execute(locked)).one_or_none()
    return None if row is None else _read(row)


def _is_due(now: datetime) -> ColumnElement[bool]:
    return and_(payout_terms.c.next_at <= now, payout_terms.c.destination_id.is_not(None))


async def set_wishes(
    connection: AsyncConnection, provider_id: UUID, wishes: tuple[Schedule, int], now: datetime
) -> None:
    """Set schedule and threshold, nano-dollars; the next payout is counted from now."""
    schedule, threshold_nanos = wishes
    values: dict[str, object] = {
        "schedule": schedule.value,
        "threshold_nanos": threshold_nanos,
        "next_at": next_due(schedule, now),
    }
    await _write(connection, provider_id, values, now)


async def set_delay(
    connection: AsyncConnection, provider_id: UUID, days: int | None, now: datetime
) -> None:
    """Set how long earnings wait, None for the general rule."""
    await _write(connection, provider_id, {"delay_days": days}, now)


async def set_place(
    connection: AsyncConnection,
    provider_id: UUID,
    destination: Destination,
    sealer: Sealer,
    now: datetime,
) -> Place:
    """Send coming payouts to `destination`; those made already keep theirs."""
    place = Place(uuid7(), method_of(destination), destination.hint, now)
    await connection.execute(
        insert(destinations).values(
            id=place.id,
            provider_id=provider_id,
            method=place.method.value,
            sealed=sealer.seal(msgspec.json.encode(destination), _seat(place.id)),
            hint=place.hint,
            created_at=now,
        )
    )
    await _write(connection, provider_id, {"destination_id": place.id}, now)
    return place


async def set_next(connection: AsyncConnection, terms: Terms, now: datetime) -> None:
    """Count the next payout of a schedule from now."""
    await connection.execute(
        update(payout_terms)
        .where(payout_terms.c.provider_id == terms.provider_id)
        .values(next_at=next_due(terms.schedule, now))
    )


async def open_places(
    connection: AsyncConnection, ids: Iterable[UUID], sealer: Sealer
) -> dict[UUID, Destination]:
    """Return what these places are. Raises SecretUnreadable."""
    query = select(destinations.c.id, destinations.c.sealed).where(
        destinations.c.id.in_(sorted(set(ids)))
    )
    return {
        row.id: msgspec.json.decode(sealer.open(row.sealed, _seat(row.id)), type=Destination)
        for row in await connection.execute(query)
    }


async def _write(
    connection: AsyncConnection, provider_id: UUID, values: dict[str, object], now: datetime
) -> None:
    changed = {**values, "updated_at": now}
    usual = {
        "schedule": SCHEDULE_DEFAULT.value,
        "threshold_nanos": THRESHOLD_DEFAULT_NANOS,
        "next_at": next_due(SCHEDULE_DEFAULT, now),
    }
    fresh = upsert(payout_terms).values(provider_id=provider_id, **usual | changed)
    await connection.execute(
        fresh.on_conflict_do_update(index_elements=["provider_id"], set_=changed)
    )


def _terms() -> Select[Any]:
    known = payout_terms.outerjoin(destinations, destinations.c.id == payout_terms.c.destination_id)
    place = (destinations.c.method, destinations.c.hint, destinations.c.created_at)
    return select(*payout_terms.c, *place).select_from(known)


def _read(row: Row[Any]) -> Terms:
    place = None
    if row.destination_id is not None:
        place = Place(row.destination_id, Method(row.method), row.hint, row.created_at)
    return Terms(
        provider_id=row.provider_id,
        schedule=Schedule(row.schedule),
        threshold_nanos=row.threshold_nanos,
        place=place,
        next_at=row.next_at,
        delay_days=row.delay_days,
    )


def _seat(destination_id: UUID) -> str:
    return f"payout_destinations.sealed {destination_id}"

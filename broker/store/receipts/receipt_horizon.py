"""How far calls have been compared with receipts, by call id; and the calls to compare once more.

What is below `claimed` is, or is just being, compared. A receipt that comes for such a call is
late, which is noted in the transaction that keeps it: the horizon moves only while none is written.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import delete, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.receipts import signed
from broker.store.receipts.signed import time_of
from broker.store.tables import open_holds, table

receipt_horizon = table("receipt_horizon", "only_row boolean, claimed uuid, compared uuid")
receipts_late = table("receipts_late", "call_id uuid")

MARGIN: Final = timedelta(minutes=1)
"""What the time in a call's id and the times in its records may be apart, and far more."""
_V7: Final = 0x7 << 76 | 0x2 << 62


@dataclass(frozen=True, slots=True)
class Horizon:
    """Calls below `compared` are done, those from there to below `claimed` are being done."""

    claimed: UUID
    compared: UUID


def least_id_at(moment: datetime) -> UUID:
    """Return a bound of the ids (UUIDv7) of calls that begin at `moment` or later."""
    return UUID(int=int(moment.timestamp() * 1_000) << 80 | _V7)


async def claim(connection: AsyncConnection, before: datetime) -> None:
    """Move the horizon on to the calls begun before a moment, but not past one that is open.

    Waits for the receipts that are being written, and is to be committed at once.
    """
    await signed.exclude(connection)
    query = select(open_holds.c.call_id).order_by(open_holds.c.call_id).limit(1)
    oldest_open: UUID | None = await connection.scalar(query)
    bound = least_id_at(before)
    if oldest_open is not None:
        bound = min(bound, oldest_open)
    further = receipt_horizon.c.claimed < bound
    await connection.execute(update(receipt_horizon).where(further).values(claimed=bound))


async def lock(connection: AsyncConnection) -> Horizon:
    """Return the horizon; whoever compares holds its lock, so that nothing is found twice."""
    query = select(receipt_horizon.c.claimed, receipt_horizon.c.compared).with_for_update()
    row = (await connection.execute(query)).one()
    return Horizon(row.claimed, row.compared)


async def advance(connection: AsyncConnection, compared: UUID) -> None:
    """All calls below this id have been compared."""
    await connection.execute(update(receipt_horizon).values(compared=compared))


async def note_late(connection: AsyncConnection, call_ids: Collection[UUID]) -> None:
    """Have those of these calls that are below the horizon compared once more."""
    claimed: UUID = (await connection.execute(select(receipt_horizon.c.claimed))).scalar_one()
    late = [{"call_id": each} for each in sorted(call_ids) if each < claimed]
    if late:
        await connection.execute(insert(receipts_late).values(late).on_conflict_do_nothing())


async def take_late(connection: AsyncConnection, limit: int) -> list[UUID]:
    """Return some calls that are to be compared once more, and note them no longer.

    One that is open still, for it waited long for its hold, stays for another time.
    """
    is_open = select(open_holds.c.call_id).where(open_holds.c.call_id == receipts_late.c.call_id)
    some = select(receipts_late.c.call_id).where(~is_open.exists()).limit(limit)
    taken = delete(receipts_late).where(receipts_late.c.call_id.in_(some.scalar_subquery()))
    rows = await connection.execute(taken.returning(receipts_late.c.call_id))
    return sorted(rows.scalars())


async def candidates(connection: AsyncConnection, horizon: Horizon, limit: int) -> list[UUID]:
    """Return the next calls that receipts or keys speak of, in the order of their ids.

    They are calls with a receipt, and those billed at a deployment that has ever had a key.
    """
    rows = await connection.execute(
        text(_CANDIDATES),
        {
            "compared": horizon.compared,
            "claimed": horizon.claimed,
            "since": time_of(horizon.compared) - MARGIN,
            "until": time_of(horizon.claimed),
            "limit": limit,
        },
    )
    return list(rows.scalars())


_CANDIDATES: Final = """
SELECT call_id FROM (
    (SELECT DISTINCT call_id FROM receipts
      WHERE call_id >= :compared AND call_id < :claimed AND call_at >= :since AND call_at <= :until
      ORDER BY call_id LIMIT :limit)
    UNION
    (SELECT DISTINCT l.call_id FROM settlement_lines l JOIN endpoints e ON e.id = l.endpoint_id
      WHERE l.call_id >= :compared AND l.call_id < :claimed AND l.settled_at >= :since
        AND e.deployment_id IN (SELECT deployment_id FROM receipt_keys)
      ORDER BY l.call_id LIMIT :limit)
) AS found ORDER BY call_id LIMIT :limit
"""

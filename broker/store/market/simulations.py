"""What operators asked of the simulator, how far it is, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.tables import table

simulations = table(
    "simulations",
    """
    id uuid, name text, author text, asked jsonb, status text, plan text, cells integer,
    cells_done integer, problem text, summary jsonb, report bytea, created_at timestamptz,
    started_at timestamptz, ended_at timestamptz
    """,
)
simulation_cells = table(
    "simulation_cells",
    "simulation_id uuid, key text, cell text, outcome text, sent_at timestamptz",
)

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
_SHOWN = tuple(each for each in simulations.c if each.name not in ("plan", "report"))


@dataclass(frozen=True, slots=True)
class StoredSimulation:
    """An order without its plan and report, which are long."""

    id: UUID
    name: str
    author: str
    asked: Mapping[str, Any]
    status: str
    cells: int
    cells_done: int
    problem: str | None
    summary: Sequence[Mapping[str, Any]] | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


async def add(connection: AsyncConnection, order: StoredSimulation) -> None:
    """Write a new order down."""
    await connection.execute(
        insert(simulations).values(
            id=order.id,
            name=order.name,
            author=order.author,
            asked=dict(order.asked),
            created_at=order.created_at,
        )
    )


async def count_open(connection: AsyncConnection) -> int:
    """Return how many orders have not ended."""
    query = select(func.count()).where(simulations.c.ended_at.is_(None))
    return int((await connection.execute(query)).scalar_one())


async def find(connection: AsyncConnection, order_id: UUID) -> StoredSimulation | None:
    """Return an order."""
    query = select(*_SHOWN).where(simulations.c.id == order_id)
    row = (await connection.execute(query)).mappings().first()
    return None if row is None else StoredSimulation(**row)


async def list_newest(connection: AsyncConnection, limit: int) -> list[StoredSimulation]:
    """Return the newest orders first."""
    query = select(*_SHOWN).order_by(simulations.c.id.desc()).limit(limit)
    return [StoredSimulation(**row) for row in (await connection.execute(query)).mappings()]


async def report(connection: AsyncConnection, order_id: UUID) -> bytes | None:
    """Return the report of an order that is done."""
    query = select(simulations.c.report).where(simulations.c.id == order_id)
    return (await connection.execute(query)).scalar_one_or_none()


async def plan(connection: AsyncConnection, order_id: UUID) -> str | None:
    """Return what was made of an order, once work on it began."""
    query = select(simulations.c.plan).where(simulations.c.id == order_id)
    return (await connection.execute(query)).scalar_one_or_none()


async def begin(
    connection: AsyncConnection, order_id: UUID, packed: str, cells: int, now: datetime
) -> bool:
    """Write down what is made of an order; False where another did so or it has ended."""
    begun = await connection.execute(
        update(simulations)
        .where(simulations.c.id == order_id, simulations.c.status == WAITING)
        .values(status=RUNNING, plan=packed, cells=cells, started_at=now)
    )
    return begun.rowcount == 1


async def end(
    connection: AsyncConnection, order_id: UUID, status: str, now: datetime, **found: object
) -> bool:
    """End an order, with `problem`, or `summary` and `report`; its cells go. False when it had."""
    ended = await connection.execute(
        update(simulations)
        .where(simulations.c.id == order_id, simulations.c.ended_at.is_(None))
        .values(status=status, ended_at=now, **found)
    )
    if ended.rowcount != 1:
        return False
    mine = simulation_cells.c.simulation_id == order_id
    await connection.execute(delete(simulation_cells).where(mine))
    return True


async def hold_open(connection: AsyncConnection, order_id: UUID) -> bool:
    """Keep an order from ending before this transaction does; False when it has ended."""
    query = (
        select(simulations.c.id)
        .where(simulations.c.id == order_id, simulations.c.ended_at.is_(None))
        .with_for_update()
    )
    return (await connection.execute(query)).first() is not None


async def to_be_advanced(connection: AsyncConnection, sent_before: datetime) -> list[UUID]:
    """Return the orders to be looked at: new ones, those of which all that was sent is done, and
    those of which something that was sent long ago is not."""
    cells = simulation_cells.c
    under_way = (
        select(cells.key)
        .where(
            cells.simulation_id == simulations.c.id,
            cells.outcome.is_(None),
            cells.sent_at >= sent_before,
        )
        .exists()
    )
    query = (
        select(simulations.c.id)
        .where(
            simulations.c.ended_at.is_(None),
            or_(simulations.c.status == WAITING, ~under_way),
        )
        .order_by(simulations.c.created_at)
    )
    return list((await connection.execute(query)).scalars())


async def add_cells(
    connection: AsyncConnection,
    order_id: UUID,
    cells: Sequence[tuple[str, str]],
    sent: tuple[datetime, datetime],
) -> list[str]:
    """Write cells (key, packed) down; return the keys that are to be sent: new ones, and those
    without an outcome sent before `sent[0]`. `sent[1]` is now."""
    if not cells:
        return []
    before, now = sent
    rows = [
        {"simulation_id": order_id, "key": key, "cell": packed, "sent_at": now}
        for key, packed in cells
    ]
    added = upsert(simulation_cells).values(rows)
    stale = (simulation_cells.c.outcome.is_(None)) & (simulation_cells.c.sent_at < before)
    done = await connection.execute(
        added.on_conflict_do_update(
            index_elements=["simulation_id", "key"], set_={"sent_at": now}, where=stale
        ).returning(simulation_cells.c.key)
    )
    return list(done.scalars())


async def cell(connection: AsyncConnection, order_id: UUID, key: str) -> str | None:
    """Return a cell that is still to be run; None when it is done or called off."""
    cells = simulation_cells.c
    query = select(cells.cell).where(
        cells.simulation_id == order_id, cells.key == key, cells.outcome.is_(None)
    )
    return (await connection.execute(query)).scalar_one_or_none()


async def keep(connection: AsyncConnection, order_id: UUID, key: str, outcome: str) -> None:
    """Write an outcome down, once, and count it."""
    cells = simulation_cells.c
    kept = await connection.execute(
        update(simulation_cells)
        .where(cells.simulation_id == order_id, cells.key == key, cells.outcome.is_(None))
        .values(outcome=outcome)
    )
    if kept.rowcount == 1:
        await connection.execute(
            update(simulations)
            .where(simulations.c.id == order_id)
            .values(cells_done=simulations.c.cells_done + 1)
        )


async def outcomes(connection: AsyncConnection, order_id: UUID) -> list[str]:
    """Return all outcomes that there are."""
    cells = simulation_cells.c
    query = (
        select(cells.outcome)
        .where(cells.simulation_id == order_id, cells.outcome.is_not(None))
        .order_by(cells.key)
    )
    return list((await connection.execute(query)).scalars())

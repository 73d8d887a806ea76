"""Orders simulations: checked at once, carried out by workers; an open order can be called off."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from importlib.metadata import entry_points
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from uuid_utils.compat import uuid7

from broker.errors import Conflict, NotFound, Unavailable
from broker.flows.access.authenticate import Caller
from broker.store.access import audit
from broker.store.access.audit import Deed
from broker.store.market import simulations
from broker.store.market.simulations import StoredSimulation

OPEN_MAX: Final = 20
# Two that order at once would not count each other's. A lock held by its transaction.
_ONE_BY_ONE: Final = "SELECT pg_advisory_xact_lock(hashtext('simulations'))"
CHECK, OFFERED = "orders", "offered"
SIMULATORS: Final = "broker.simulators"
"""Entry points of the simulator: `orders` checks an order and returns the name of its scenario, or
raises; `offered` returns what can be ordered."""

Check = Callable[[Mapping[str, Any]], str]
Offered = Mapping[str, Sequence[Mapping[str, str]]]
"""`scenarios` and `controllers`, each with `name` and `description`."""


async def order_simulation(
    connection: AsyncConnection, author: Caller, asked: Mapping[str, Any], now: datetime
) -> StoredSimulation:
    """Write an order down, with its audit entry. A worker takes it up within seconds.

    Raises Unavailable where no simulator is installed, Conflict when too many orders are open, and
    what the simulator finds wrong with the order.
    """
    # In a thread: each point of a grid takes a millisecond or two, and calls shall go on.
    name = await asyncio.to_thread(lambda: _check()(asked))
    await connection.execute(text(_ONE_BY_ONE))
    if await simulations.count_open(connection) >= OPEN_MAX:
        raise Conflict("Too many simulations are open; wait, or cancel some.")
    order = StoredSimulation(
        id=uuid7(),
        name=name,
        author=author.name,
        asked=asked,
        status=simulations.WAITING,
        cells=0,
        cells_done=0,
        problem=None,
        summary=None,
        created_at=now,
        started_at=None,
        ended_at=None,
    )
    await simulations.add(connection, order)
    deed = Deed(author.name, "order_simulation", f"simulations/{order.id}", {"name": name})
    await audit.record(connection, deed, now)
    return order


async def cancel_simulation(
    connection: AsyncConnection, author: Caller, order_id: UUID, now: datetime
) -> StoredSimulation:
    """Call an order off; what is under way ends by itself and is dropped.

    Raises NotFound, and Conflict when it has ended.
    """
    if await simulations.find(connection, order_id) is None:
        raise NotFound("There is no such simulation.")
    if not await simulations.end(connection, order_id, simulations.CANCELLED, now):
        raise Conflict("The simulation has ended already.")
    deed = Deed(author.name, "cancel_simulation", f"simulations/{order_id}")
    await audit.record(connection, deed, now)
    order = await simulations.find(connection, order_id)
    assert order is not None
    return order


async def read_simulation(engine: AsyncEngine, order_id: UUID) -> StoredSimulation:
    """Return an order and how far it is. Raises NotFound."""
    async with engine.connect() as connection:
        order = await simulations.find(connection, order_id)
    if order is None:
        raise NotFound("There is no such simulation.")
    return order


async def read_simulations(engine: AsyncEngine, limit: int) -> list[StoredSimulation]:
    """Return the newest orders first."""
    async with engine.connect() as connection:
        return await simulations.list_newest(connection, limit)


async def read_report(engine: AsyncEngine, order_id: UUID) -> bytes:
    """Return the page of an order that is done. Raises NotFound."""
    async with engine.connect() as connection:
        packed = await simulations.report(connection, order_id)
    if packed is None:
        raise NotFound("There is no such report, or not yet.")
    return zlib.decompress(packed)


def offered() -> Offered:
    """Return what can be ordered. Raises Unavailable where no simulator is installed."""
    told: Offered = _simulator(OFFERED)()
    return told


def _check() -> Check:
    check: Check = _simulator(CHECK)
    return check


def _simulator(door: str) -> Any:
    found = list(entry_points(group=SIMULATORS, name=door))
    if not found:
        raise Unavailable("No simulator is installed.")
    return found[0].load()

"""The door through which workers of simulations read orders and write down what came of them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.flows.market.tell_market import tell_market
from broker.store.market import simulations as store
from broker.store.sealing import Sealer

STALE: Final = timedelta(minutes=30)
"""A run that was sent out so long ago is taken for lost, and sent again."""

CALLS_PLAYED_MAX: Final = 200_000
"""Calls that an order may play again: each of its runs is kept with them."""


class HasSecrets(Protocol):
    """What opens the catalog."""

    @property
    def secret_key(self) -> str: ...
    @property
    def secret_keys_old(self) -> tuple[str, ...]: ...


class HasEngine(Protocol):
    """Where background work is done."""

    @property
    def settings(self) -> HasSecrets: ...
    @property
    def engine(self) -> AsyncEngine: ...


async def to_be_advanced(room: HasEngine) -> list[UUID]:
    """Return the open orders of which nothing is under way."""
    async with room.engine.connect() as connection:
        return await store.to_be_advanced(connection, datetime.now(UTC) - STALE)


async def asked(room: HasEngine, order_id: UUID) -> Mapping[str, Any] | None:
    """Return what an order asks for; None where there is no such order, or it has ended."""
    async with room.engine.connect() as connection:
        order = await store.find(connection, order_id)
    return None if order is None or order.ended_at is not None else order.asked


async def plan(room: HasEngine, order_id: UUID) -> str | None:
    """Return what was made of an order, once work on it began."""
    async with room.engine.connect() as connection:
        return await store.plan(connection, order_id)


async def market(room: HasEngine, days: float) -> dict[str, Any]:
    """Return the market and its calls of so many days. Raises RequestMalformed for too many."""
    settings, until = room.settings, datetime.now(UTC)
    sealer = Sealer(settings.secret_key, settings.secret_keys_old)
    since = until - timedelta(days=days)
    return await tell_market(room.engine, sealer, since, until, CALLS_PLAYED_MAX)


async def begin(room: HasEngine, order_id: UUID, plan: str, cells: int) -> None:
    """Write down what is made of an order; the first to do so is heard."""
    async with room.engine.begin() as connection:
        await store.begin(connection, order_id, plan, cells, datetime.now(UTC))


async def outcomes(room: HasEngine, order_id: UUID) -> list[str]:
    """Return all outcomes of an order that there are."""
    async with room.engine.connect() as connection:
        return await store.outcomes(connection, order_id)


async def add_cells(room: HasEngine, order_id: UUID, cells: Sequence[tuple[str, str]]) -> list[str]:
    """Write down the runs (key, packed) that an order takes; return the keys that are to be sent
    out now. None of an order that has ended."""
    now = datetime.now(UTC)
    async with room.engine.begin() as connection:
        if not await store.hold_open(connection, order_id):
            return []
        return await store.add_cells(connection, order_id, cells, (now - STALE, now))


async def cell(room: HasEngine, order_id: UUID, key: str) -> str | None:
    """Return a run that is still to be made; None when it was made or called off."""
    async with room.engine.connect() as connection:
        return await store.cell(connection, order_id, key)


async def keep(room: HasEngine, order_id: UUID, key: str, outcome: str) -> None:
    """Write down what came of a run."""
    async with room.engine.begin() as connection:
        await store.keep(connection, order_id, key, outcome)


async def done(room: HasEngine, order_id: UUID, report: str, summary: Any) -> None:
    """End an order with its report and a summary of plain JSON values."""
    page = zlib.compress(report.encode())
    await _end(room, order_id, store.DONE, report=page, summary=summary)


async def failed(room: HasEngine, order_id: UUID, problem: str) -> None:
    """End an order that cannot be carried out."""
    await _end(room, order_id, store.FAILED, problem=problem)


async def _end(room: HasEngine, order_id: UUID, status: str, **found: object) -> None:
    async with room.engine.begin() as connection:
        await store.end(connection, order_id, status, datetime.now(UTC), **found)

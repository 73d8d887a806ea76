"""Price books, stored as changes; a version is inserted once, which fences a late leader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Row, func, insert, select, true
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import LateralFromClause

from broker.store.tables import endpoints, price_books, price_changes
from pricing.book import PriceBook, Rate

_HISTORY_MAX = 10_000


class VersionTaken(Exception):
    """Another leader has drawn this version: whoever meets this leads no more."""


@dataclass(frozen=True, slots=True)
class PriceChange:
    """One endpoint's rate from one version on, with the load that it came from."""

    endpoint_number: int
    version: int
    at: datetime
    rate: Rate
    load: float


async def latest_version(connection: AsyncConnection) -> int:
    """Return the newest version, 0 when there is none yet."""
    newest = await connection.execute(select(func.coalesce(func.max(price_books.c.version), 0)))
    return int(newest.scalar_one())


async def latest_book(connection: AsyncConnection) -> PriceBook:
    """Return the newest book, as far as endpoints in force are concerned."""
    version = await latest_version(connection)
    newest = _newest(price_changes.c.version <= version)
    query = (
        select(newest)
        .select_from(endpoints.join(newest, true()))
        .where(endpoints.c.retired_at.is_(None))
    )
    rows = (await connection.execute(query)).all()
    size = max((row.endpoint_number for row in rows), default=-1) + 1
    rates = np.zeros((3, size), dtype=np.int64)
    for row in rows:
        rates[:, row.endpoint_number] = (
            row.rate_in_micros,
            row.rate_out_micros,
            row.rate_call_nanos,
        )
    return PriceBook.from_matrix(version, rates)


async def insert_book(
    connection: AsyncConnection,
    book: PriceBook,
    controller: str,
    changed: Sequence[tuple[int, float]],
    now: datetime,
) -> None:
    """Store a book's version, and the rates of those that `changed`: (endpoint number, load).

    Raises VersionTaken, whereupon the transaction must be rolled back.
    """
    drawn = await connection.execute(
        upsert(price_books)
        .values(version=book.version, at=now, controller=controller)
        .on_conflict_do_nothing()
    )
    if drawn.rowcount == 0:
        raise VersionTaken(f"price version {book.version} has been drawn by another leader")
    rates = book.matrix()
    rows = [
        {
            "endpoint_number": number,
            "version": book.version,
            "at": now,
            "rate_in_micros": int(rates[0, number]),
            "rate_out_micros": int(rates[1, number]),
            "rate_call_nanos": int(rates[2, number]),
            "load": load,
        }
        for number, load in changed
    ]
    if rows:
        await connection.execute(insert(price_changes), rows)


async def history(
    connection: AsyncConnection,
    numbers: Sequence[int],
    since: datetime,
    *,
    until: datetime | None = None,
    limit: int = 1_000,
) -> list[PriceChange]:
    """Return changes of these endpoints from `since` on and before `until`, oldest first.

    Of more than `limit` the newest are returned.
    The rate in force at `since` is not among them unless it changed then: see `rates_at`.
    """
    query = (
        select(price_changes)
        .where(price_changes.c.endpoint_number.in_(list(numbers)), price_changes.c.at >= since)
        .order_by(price_changes.c.at.desc(), price_changes.c.version.desc())
        .limit(min(limit, _HISTORY_MAX))
    )
    if until is not None:
        query = query.where(price_changes.c.at < until)
    return [_change(row) for row in await connection.execute(query)][::-1]


async def rates_at(
    connection: AsyncConnection, numbers: Sequence[int], at: datetime
) -> list[PriceChange]:
    """Return the last change of each of these endpoints before or at `at`, where there is one."""
    newest = _newest(price_changes.c.at <= at)
    query = (
        select(newest)
        .select_from(endpoints.join(newest, true()))
        .where(endpoints.c.number.in_(list(numbers)))
    )
    return [_change(row) for row in await connection.execute(query)]


def _newest(condition: ColumnElement[bool]) -> LateralFromClause:
    """The last change of one endpoint, found by index in each partition, newest first."""
    return (
        select(price_changes)
        .where(price_changes.c.endpoint_number == endpoints.c.number, condition)
        .order_by(price_changes.c.at.desc(), price_changes.c.version.desc())
        .limit(1)
        .lateral()
    )


def _change(row: Row[Any]) -> PriceChange:
    rate = Rate(row.rate_in_micros, row.rate_out_micros, row.rate_call_nanos)
    return PriceChange(row.endpoint_number, row.version, row.at, rate, row.load)

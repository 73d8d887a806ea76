"""Price books, stored as changes; a version is inserted once, which fences a late leader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike
from sqlalchemy import ColumnElement, Row, func, literal, select, text, true
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import LateralFromClause

from broker.store.tables import endpoints, offers, price_books, price_changes
from pricing.book import IntArray, PriceBook, Rate

_HISTORY_MAX = 10_000
_LOAD_MAX = 1e9
"""A load beyond is kept as this."""

# Of a large market most prices change in a tick: so many rows, one by one, are the most that it
# costs, in time and in memory. They travel as columns, and come back as one string.
_PACKED = np.dtype([("number", ">i4"), ("rates", ">i8", 3)])
_INSERT_CHANGES = text(
    """
    INSERT INTO price_changes (endpoint_number, version, at, rate_in_micros, rate_out_micros,
                               rate_call_nanos, load)
    SELECT number, :version, :at, rate_in, rate_out, rate_call,
           millionths * CAST(1e-6 AS double precision)
      FROM unnest(CAST(CAST(:numbers AS text) AS integer[]), CAST(CAST(:ins AS text) AS bigint[]),
                  CAST(CAST(:outs AS text) AS bigint[]), CAST(CAST(:calls AS text) AS bigint[]),
                  CAST(CAST(:loads AS text) AS bigint[]))
           AS changed (number, rate_in, rate_out, rate_call, millionths)
    """
)


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
    packed: ColumnElement[Any] = func.int4send(newest.c.endpoint_number)
    for name in ("rate_in_micros", "rate_out_micros", "rate_call_nanos"):
        packed = packed.op("||")(func.int8send(newest.c[name]))
    query = (
        select(func.string_agg(packed, literal(b"")))
        .select_from(endpoints.join(newest, true()))
        .where(endpoints.c.retired_at.is_(None))
    )
    rows = np.frombuffer(await connection.scalar(query) or b"", dtype=_PACKED)
    rates = np.zeros((3, int(rows["number"].max(initial=-1)) + 1), dtype=np.int64)
    rates[:, rows["number"]] = rows["rates"].T
    return PriceBook.from_matrix(version, rates)


async def insert_book(
    connection: AsyncConnection,
    book: PriceBook,
    controller: str,
    changed: tuple[ArrayLike, ArrayLike],
    now: datetime,
) -> None:
    """Store a book's version, and the rates of those that `changed`: (endpoint numbers, the load of
    each), which is kept to a millionth.

    Raises VersionTaken, whereupon the transaction must be rolled back.
    """
    drawn = await connection.execute(
        upsert(price_books)
        .values(version=book.version, at=now, controller=controller)
        .on_conflict_do_nothing()
    )
    if drawn.rowcount == 0:
        raise VersionTaken(f"price version {book.version} has been drawn by another leader")
    numbers = np.asarray(changed[0], dtype=np.int64)
    if not numbers.size:
        return
    # As text, for the driver looks at each element of an array, which took a third of a tick of
    # 10,000 prices; and all as integers, for a float takes six times as long to write.
    loads = np.rint(np.clip(np.nan_to_num(changed[1]), 0.0, _LOAD_MAX) * 1e6).astype(np.int64)
    columns = map(_array, (numbers, *book.matrix().take(numbers, axis=1), loads))
    told = dict(zip(("numbers", "ins", "outs", "calls", "loads"), columns, strict=True))
    await connection.execute(_INSERT_CHANGES, {"version": book.version, "at": now, **told})


def _array(values: IntArray) -> str:
    """Return numbers as PostgreSQL writes an array of them."""
    return f"{{{msgspec.json.encode(values.tolist()).decode()[1:-1]}}}"


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


async def list_prices_before(
    connection: AsyncConnection, numbers: Sequence[int]
) -> list[PriceChange]:
    """Return what each of these endpoints was listed at before its first change, oldest first.

    The version is 0: until their first change they are sold at this under whichever book there is.
    """
    first = (
        select(func.min(price_changes.c.at))
        .where(price_changes.c.endpoint_number == endpoints.c.number)
        .scalar_subquery()
    )
    query = (
        select(
            endpoints.c.number.label("endpoint_number"),
            literal(0).label("version"),
            offers.c.valid_from.label("at"),
            offers.c.list_in_micros.label("rate_in_micros"),
            offers.c.list_out_micros.label("rate_out_micros"),
            offers.c.list_call_nanos.label("rate_call_nanos"),
            literal(0.0).label("load"),
        )
        .select_from(endpoints.join(offers, offers.c.endpoint_id == endpoints.c.id))
        .where(
            endpoints.c.number.in_(list(numbers)),
            offers.c.valid_from < func.coalesce(first, text("'infinity'::timestamptz")),
        )
        .order_by(offers.c.valid_from)
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

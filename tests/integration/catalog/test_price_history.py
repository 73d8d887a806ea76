"""Of several endpoints each has its own prices: over time, at a moment, and before the first."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
import numpy as np
import pytest
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.store.access.accounts import Role
from broker.store.market import prices
from broker.store.market.prices import PriceChange, VersionTaken
from broker.store.tables import endpoints
from pricing.book import PriceBook, Rate
from tests.integration.catalog.offers import (
    TOKEN_BAND,
    endpoint_offer,
    offer,
    open_account,
    register,
)

BEGIN = datetime.fromisoformat("2026-03-01T12:00:00Z")
LIST = Rate(200_000, 600_000, 0)
TICK = timedelta(seconds=1)


def rate(number: int, version: int) -> Rate:
    return Rate(1_000 * number + version, 2_000 * number + version, 0)


def change(number: int, version: int, at: datetime) -> PriceChange:
    return PriceChange(number, version, at, rate(number, version), version / 8)


async def published(
    connection: AsyncConnection, version: int, numbers: list[int], at: datetime
) -> None:
    """Store a book in which these have new prices."""
    rates = np.zeros((3, max(numbers) + 1), dtype=np.int64)
    for number in numbers:
        told = rate(number, version)
        rates[:, number] = told.rate_in_micros, told.rate_out_micros, told.rate_call_nanos
    book = PriceBook.from_matrix(version, rates)
    loads = [version / 8] * len(numbers)
    await prices.insert_book(connection, book, "posted", (numbers, loads), at)


@pytest.fixture
async def numbers(engine: AsyncEngine) -> list[int]:
    """Three endpoints: the prices of the first change four times, those of the second twice, those
    of the last never; the second's list price changed before and after its price first did. A
    version may be drawn later for an earlier time, where a clock or a database was set back."""
    acme = await open_account(engine, Role.PROVIDER, "acme")
    first, second, third = (endpoint_offer(name=name) for name in ("law", "tax", "new"))
    await register(engine, acme, offer(endpoints=[first]), BEGIN)
    await register(engine, acme, offer(endpoints=[first, second, third]), BEGIN)
    for at, list_in in ((BEGIN + TICK * 1.25, "0.25"), (BEGIN + 8 * TICK, "0.30")):
        band = msgspec.structs.replace(TOKEN_BAND, list_in=list_in)
        changed = msgspec.structs.replace(second, price=band)
        await register(engine, acme, offer(endpoints=[first, changed, third]), at)
    async with engine.begin() as connection:
        rows = await connection.execute(text("SELECT number FROM endpoints ORDER BY number"))
        found = list(rows.scalars())
        await published(connection, 1, found[:1], BEGIN + TICK)
        await published(connection, 2, found[:2], BEGIN + 2 * TICK)
        await published(connection, 3, found[:1], BEGIN + 2 * TICK)
        await published(connection, 4, found[1:2], BEGIN + 10 * TICK)
        await published(connection, 5, found[:1], BEGIN + 1.5 * TICK)
    return found


async def test_history_is_of_those_asked_for_and_of_the_time_asked_for(
    engine: AsyncEngine, numbers: list[int]
) -> None:
    one, two, three = numbers
    first = change(one, 1, BEGIN + TICK)
    late = change(one, 5, BEGIN + 1.5 * TICK)
    rest = [change(one, version, BEGIN + 2 * TICK) for version in (2, 3)]
    others = [change(two, 2, BEGIN + 2 * TICK), change(two, 4, BEGIN + 10 * TICK)]
    async with engine.connect() as connection:

        async def told(
            asked: list[int], since: datetime, until: datetime | None = None, limit: int = 9
        ) -> list[PriceChange]:
            return await prices.history(connection, asked, since, until=until, limit=limit)

        assert await told([one], BEGIN) == [first, late, *rest]
        assert await told([one], BEGIN + TICK) == [first, late, *rest]
        assert await told([one], BEGIN + TICK * 1.1) == [late, *rest]
        assert await told([one], BEGIN, BEGIN + 2 * TICK) == [first, late]
        assert await told([one], BEGIN, limit=2) == rest, "the newest, oldest first"
        assert await told([two], BEGIN) == others
        assert await told([three], BEGIN) == await told([], BEGIN) == []
        assert len(await told(numbers, BEGIN)) == 6


async def test_rates_at_a_moment_are_the_last_by_then_of_each_that_is_asked_for(
    engine: AsyncEngine, numbers: list[int]
) -> None:
    one, two, _ = numbers
    newest = [change(one, 3, BEGIN + 2 * TICK), change(two, 2, BEGIN + 2 * TICK)]
    async with engine.connect() as connection:
        for at, known in (
            (BEGIN + TICK / 2, []),
            (BEGIN + TICK, [change(one, 1, BEGIN + TICK)]),
            (BEGIN + 2 * TICK, newest),
            (BEGIN + 9 * TICK, newest),
        ):
            found = await prices.rates_at(connection, numbers, at)
            assert sorted(found, key=lambda each: each.endpoint_number) == known
        assert await prices.rates_at(connection, [two], BEGIN + 2 * TICK) == newest[1:]


async def test_before_its_first_change_each_was_listed_at_what_its_terms_said(
    engine: AsyncEngine, numbers: list[int]
) -> None:
    one, two, three = numbers
    async with engine.connect() as connection:
        assert await prices.list_prices_before(connection, [one]) == [
            PriceChange(one, 0, BEGIN, LIST, 0.0)
        ]
        assert await prices.list_prices_before(connection, [two]) == [
            PriceChange(two, 0, BEGIN, LIST, 0.0),
            PriceChange(two, 0, BEGIN + TICK * 1.25, Rate(250_000, 600_000, 0), 0.0),
        ], "what its terms said later was never its price"
        assert await prices.list_prices_before(connection, [three]) == [
            PriceChange(three, 0, BEGIN, LIST, 0.0)
        ]


async def test_the_newest_book_has_the_newest_price_of_each_that_is_in_force(
    engine: AsyncEngine, numbers: list[int]
) -> None:
    one, two, _ = numbers
    async with engine.begin() as connection:
        book = await prices.latest_book(connection)
        assert (book.version, len(book)) == (5, two + 1)
        assert [book.rate(number) for number in (one, two)] == [rate(one, 3), rate(two, 4)]
        with pytest.raises(VersionTaken):
            await published(connection, 5, [one], BEGIN + 9 * TICK)
        retired = update(endpoints).where(endpoints.c.number == two)
        await connection.execute(retired.values(retired_at=BEGIN + 9 * TICK))
        assert len(await prices.latest_book(connection)) == one + 1

"""A key's first budget counts what the key has spent and holds, whatever happens beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.store import ledger
from broker.store.books.budgeted_keys import BudgetedKeys
from broker.store.books.budgets import Budgets
from tests.integration.ledger.books.test_budgets import figures, hold, set_budgets
from tests.integration.ledger.entries import PROCESS, a_capture, a_hold, open_key
from tests.integration.ledger.waiting import until_blocked


@pytest.fixture
async def key(connection: asyncpg.Connection, consumer: UUID) -> str:
    return await open_key(connection, consumer)


@pytest.fixture
async def watcher(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    watcher = await asyncpg.connect(database_url)
    yield watcher
    await watcher.close()


async def test_what_is_open_counts_in_the_first_budget_and_is_settled_in_it(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
    key: str,
) -> None:
    known = BudgetedKeys()
    early, late = (a_hold(consumer, 10_000, key_id=key) for _ in range(2))
    foreign = a_hold(consumer, 10_000)
    assert await hold(connection, early, late, foreign, known=known) == [True] * 3
    await set_budgets(engine, key, Budgets(day_nanos=25_000))
    assert (await figures(engine, key))["day"] == (25_000, 0, 20_000)
    asked = [a_hold(consumer, amount, key_id=key) for amount in (5_001, 5_000)]
    assert await hold(connection, asked[0], known=known) == [False]
    assert await hold(connection, asked[1], known=known) == [True]
    # A process that has not heard of the budget settles what it had admitted before.
    settled = await ledger.settle_batch(
        connection, [a_capture(early, (provider, 7)), a_capture(late)], take, BudgetedKeys()
    )
    assert [each.settled for each in settled] == [True, True]
    assert await figures(engine, key) == {
        "day": (25_000, 7_000, 5_000),
        "month": (None, 7_000, 5_000),
        "total": (None, 7_000, 5_000),
    }


async def test_what_was_open_before_midnight_counts_in_the_day_before(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
    key: str,
) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=40)
    old = a_hold(consumer, 10_000, key_id=key, at=long_ago)
    assert await hold(connection, old) == [True]
    await set_budgets(engine, key, Budgets(day_nanos=1_000, total_nanos=9_000))
    assert await figures(engine, key) == {
        "day": (1_000, 0, 0),
        "month": (None, 0, 0),
        "total": (9_000, 0, 10_000),
    }
    assert (await figures(engine, key, long_ago))["month"] == (None, 0, 10_000)
    await ledger.settle_batch(connection, [a_capture(old, (provider, 8))], take)
    assert (await figures(engine, key))["total"] == (9_000, 8_000, 0)
    assert (await figures(engine, key, long_ago))["day"] == (1_000, 8_000, 0)


@pytest.mark.parametrize("knows_budgets", [False, True])
async def test_a_hold_that_began_before_the_first_budget_and_comes_after_it_is_counted(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    other: asyncpg.Connection,
    watcher: asyncpg.Connection,
    consumer: UUID,
    key: str,
    knows_budgets: bool,
) -> None:
    known = None if knows_budgets else BudgetedKeys()
    asked = a_hold(consumer, 10_000, key_id=key)
    async with other.transaction():
        # Whoever is in front of both keeps the hold's statement waiting for the balance.
        await other.execute("SELECT FROM balances FOR UPDATE")
        budget = asyncio.create_task(set_budgets(engine, key, Budgets(day_nanos=9_999)))
        await until_blocked(watcher)
        holding = asyncio.create_task(ledger.hold_batch(connection, [asked], PROCESS, known))
        await until_blocked(watcher, 2)
    await budget
    [result] = await holding
    assert not result.accepted
    assert await hold(connection, asked, known=known) == [False]
    assert (await figures(engine, key))["day"] == (9_999, 0, 0)


async def test_what_is_settled_beside_it_is_counted_once(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    other: asyncpg.Connection,
    watcher: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
    key: str,
) -> None:
    """The settlement has its hold and waits for the balance, which the budget gets before it."""
    first = a_hold(consumer, 10_000, key_id=key)
    assert await hold(connection, first) == [True]
    async with other.transaction():
        await other.execute("SELECT FROM balances FOR UPDATE")
        settling = asyncio.create_task(
            ledger.settle_batch(connection, [a_capture(first, (provider, 6))], take)
        )
        await until_blocked(watcher)
        budget = asyncio.create_task(set_budgets(engine, key, Budgets(day_nanos=20_000)))
        await until_blocked(watcher, 2)
    await asyncio.gather(settling, budget)
    assert (await figures(engine, key))["day"] == (20_000, 6_000, 0)


async def test_calls_and_first_budgets_beside_each_other_neither_deadlock_nor_slip_through(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    other: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
) -> None:
    keys = [await open_key(connection, consumer) for _ in range(8)]
    spent = dict.fromkeys(keys, 0)
    done = asyncio.Event()

    async def trade(driver: asyncpg.Connection) -> None:
        known = BudgetedKeys()
        while not done.is_set():
            holds = [a_hold(consumer, 2_000, key_id=key) for key in keys]
            accepted = await hold(driver, *holds, known=known)
            fits = [each for each, yes in zip(holds, accepted, strict=True) if yes]
            captures = [a_capture(each, (provider, 1)) for each in fits]
            await ledger.settle_batch(driver, captures, take, known)
            for each in fits:
                spent[each.key_id] += 1_000

    traders = [asyncio.create_task(trade(each)) for each in (connection, other)]
    for key in keys:
        await set_budgets(engine, key, Budgets(total_nanos=10**9))
    done.set()
    await asyncio.gather(*traders)
    for key in keys:
        assert (await figures(engine, key))["total"] == (10**9, spent[key], 0)

"""Budgets as callers meet them: many at the edge, some that wait, and what they are told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.errors import BudgetTooLow, Unavailable
from broker.flows.books.batch import LedgerBatcher
from broker.flows.books.lane_ahead import HoldTerms
from broker.flows.books.sweep import release_orphans, sweep_expired
from broker.store import ledger
from broker.store.books import budgets
from broker.store.books.budgets import Budgets
from broker.store.database import create_pool
from tests.integration.ledger.conftest import FUNDS_NANOS
from tests.integration.ledger.entries import (
    a_capture,
    a_hold,
    open_account,
    open_key,
    standing,
)
from tests.waiting import until

CALL_NANOS = 5_000
PATIENCE_S = 60.0


@pytest.fixture
async def rival(pool: asyncpg.Pool, connection: asyncpg.Connection) -> AsyncIterator[LedgerBatcher]:
    """Another broker on the same database."""
    batcher = LedgerBatcher(pool, await ledger.take_account(connection, 2), HoldTerms(2))
    batcher.start()
    yield batcher
    await batcher.drain()


async def a_key(
    engine: AsyncEngine, connection: asyncpg.Connection, account: UUID, limits: Budgets
) -> str:
    key = await open_key(connection, account)
    async with engine.begin() as setting:
        await budgets.set_budgets(setting, key, limits)
    return key


async def counted(connection: asyncpg.Connection, key: str) -> tuple[int, int]:
    """Spent and held in total."""
    return tuple(
        await connection.fetchrow(
            "SELECT spent_nanos, held_nanos FROM budget_periods"
            " WHERE key_id = $1 AND kind = 'total'",
            key,
        )
    )


async def test_a_budget_is_never_exceeded_by_200_calls_of_two_brokers_at_its_edge(
    engine: AsyncEngine,
    batcher: LedgerBatcher,
    rival: LedgerBatcher,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
) -> None:
    limit_nanos = 30 * CALL_NANOS + 1
    key = await a_key(engine, connection, consumer, Budgets(day_nanos=limit_nanos))
    tokens = random.Random(5)
    charges: list[int] = []

    async def call(number: int) -> None:
        broker = (batcher, rival)[number % 2]
        hold = a_hold(consumer, CALL_NANOS, key_id=key)
        await broker.hold(hold, PATIENCE_S)
        await asyncio.sleep(0)
        capture = a_capture(hold, (provider, tokens.randint(0, 5)))
        assert await broker.settle(capture)
        charges.append(capture.charge_nanos)

    outcomes = await asyncio.gather(*map(call, range(200)), return_exceptions=True)

    refused = [outcome for outcome in outcomes if outcome is not None]
    assert {type(each) for each in refused} == {BudgetTooLow}
    assert {each.code for each in refused} == {"budget_exceeded"}, "no call waits for the spent"
    assert len(charges) > 30, "calls that waited took what others gave back"
    assert await counted(connection, key) == (sum(charges), 0)
    assert limit_nanos - CALL_NANOS < sum(charges) <= limit_nanos


async def test_a_call_waits_for_those_under_way_and_keeps_no_other_from_passing(
    engine: AsyncEngine,
    batcher: LedgerBatcher,
    rival: LedgerBatcher,
    connection: asyncpg.Connection,
    consumer: UUID,
) -> None:
    key = await a_key(engine, connection, consumer, Budgets(month_nanos=2 * CALL_NANOS))
    first = a_hold(consumer, 2 * CALL_NANOS - 1, key_id=key)
    await rival.hold(first)
    waiting = asyncio.create_task(batcher.hold(a_hold(consumer, 2, key_id=key), PATIENCE_S))
    await batcher.hold(a_hold(consumer, 1, key_id=key), PATIENCE_S)
    await batcher.hold(a_hold(consumer, CALL_NANOS))
    assert not waiting.done()
    assert await rival.settle(a_capture(first))
    await waiting
    assert await counted(connection, key) == (0, 3)


async def test_a_call_that_waited_in_vain_is_told_what_is_held(
    engine: AsyncEngine, batcher: LedgerBatcher, connection: asyncpg.Connection, consumer: UUID
) -> None:
    key = await a_key(engine, connection, consumer, Budgets(day_nanos=2_000_000))
    await batcher.hold(a_hold(consumer, 1_500_000, key_id=key))
    for wait_s in (0.0, 0.2):
        with pytest.raises(BudgetTooLow) as caught:
            await batcher.hold(a_hold(consumer, 600_000, key_id=key), wait_s)
        assert (caught.value.status, caught.value.code) == (402, "budget_held")
        assert caught.value.facts == {
            "budget": "day",
            "limit_usd": "0.002",
            "spent_usd": "0.00",
            "held_usd": "0.0015",
            "needed_usd": "0.0006",
        }


async def test_a_call_above_what_is_left_of_the_spent_is_refused_at_once(
    engine: AsyncEngine,
    batcher: LedgerBatcher,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
) -> None:
    key = await a_key(engine, connection, consumer, Budgets(total_nanos=10_000))
    spent, held = (a_hold(consumer, 5_000, key_id=key) for _ in range(2))
    await batcher.hold(spent)
    await batcher.hold(held)
    await batcher.settle(a_capture(spent, (provider, 5)))
    async with asyncio.timeout(PATIENCE_S / 2):
        with pytest.raises(BudgetTooLow, match=r"0\.000005 USD spent") as caught:
            await batcher.hold(a_hold(consumer, 5_001, key_id=key), PATIENCE_S)
    assert (caught.value.status, caught.value.code) == (402, "budget_exceeded")
    assert caught.value.facts["budget"] == "total"


async def test_a_caller_who_leaves_while_it_waits_leaves_nothing_held(
    engine: AsyncEngine, batcher: LedgerBatcher, connection: asyncpg.Connection, consumer: UUID
) -> None:
    key = await a_key(engine, connection, consumer, Budgets(day_nanos=CALL_NANOS))
    first = a_hold(consumer, CALL_NANOS, key_id=key)
    await batcher.hold(first)
    waiting = asyncio.create_task(batcher.hold(a_hold(consumer, 1, key_id=key), PATIENCE_S))

    async def waits() -> bool:
        return batcher._holds._waiting == 1

    await until(waits)
    waiting.cancel()
    await asyncio.wait([waiting])
    await batcher.settle(a_capture(first))
    await batcher.hold(a_hold(consumer, CALL_NANOS, key_id=key), PATIENCE_S)
    assert batcher._holds._waiting == 0
    assert await counted(connection, key) == (0, CALL_NANOS)


async def test_those_who_wait_are_told_when_the_ledger_closes(
    engine: AsyncEngine, batcher: LedgerBatcher, connection: asyncpg.Connection, consumer: UUID
) -> None:
    key = await a_key(engine, connection, consumer, Budgets(day_nanos=CALL_NANOS))
    await batcher.hold(a_hold(consumer, CALL_NANOS, key_id=key))
    waiting = asyncio.create_task(batcher.hold(a_hold(consumer, 1, key_id=key), PATIENCE_S))

    async def waits() -> bool:
        return batcher._holds._waiting == 1

    await until(waits)
    await batcher.drain()
    async with asyncio.timeout(PATIENCE_S / 2):
        with pytest.raises(Unavailable):
            await waiting


async def test_brokers_and_workers_on_keys_with_budgets_never_wait_for_each_other_in_a_circle(
    engine: AsyncEngine,
    batcher: LedgerBatcher,
    rival: LedgerBatcher,
    database_url: str,
    connection: asyncpg.Connection,
) -> None:
    order = random.Random(11)
    consumers = [await open_account(connection, "consumer", FUNDS_NANOS) for _ in range(4)]
    providers = [await open_account(connection, "provider") for _ in range(3)]
    generous = Budgets(10**9, 10**9, 10**9)
    keys = [await a_key(engine, connection, each, generous) for each in consumers for _ in "ab"]
    trading = True

    async def call(number: int) -> bool:
        broker, key = (batcher, rival)[number % 2], order.randrange(8)
        doomed = number % 3 == 0
        hold = a_hold(consumers[key // 2], 20_000, -1 if doomed else 400, key_id=keys[key])
        await broker.hold(hold)
        return await broker.settle(a_capture(hold, (order.choice(providers), 10)))

    async def work() -> None:
        pool = await create_pool(database_url, 2)
        while trading:
            await sweep_expired(pool, datetime.now(UTC))
            await release_orphans(pool, grace_s=0)
        await pool.close()

    async def change() -> None:
        while trading:
            async with engine.begin() as setting:
                await budgets.set_budgets(setting, order.choice(keys), generous)

    others = [asyncio.create_task(each()) for each in (work, work, change)]
    settled = await asyncio.gather(*map(call, range(600)))
    trading = False
    await asyncio.gather(*others)

    kinds = dict(await connection.fetch("SELECT kind, count(*) FROM settlements GROUP BY kind"))
    assert kinds["captured"] == sum(settled)
    assert sum(kinds.values()) == 600
    for each in consumers:
        assert (await standing(connection, each)).held_nanos == 0
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await connection.fetchval(deadlocks) == 0

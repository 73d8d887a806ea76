"""Sales of the month are counted from the books, however late a settlement is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.cli.local import OPERATOR
from broker.core.money.takes import Tier
from broker.flows.money.count_sales import count_sales
from broker.flows.money.set_plan import PlanWanted, set_plan
from broker.store import ledger
from broker.store.database import create_engine
from broker.store.money import plans
from tests.integration.ledger.entries import PROCESS, a_capture, a_hold, ledger_connection
from tests.integration.ledger.entries import open_account as open_purse

NOW = datetime.now(UTC)
TIERS = (Tier(0, 1_000), Tier(5_000_000, 500))


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url, connections_max=2)
    yield engine
    await engine.dispose()


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await ledger_connection(database_url)
    yield connection
    await connection.close()


async def sell(connection: asyncpg.Connection, payer: UUID, payee: UUID, tokens: int) -> None:
    """A call settled now, for 1,000 nano-dollars a token."""
    hold = a_hold(payer, tokens * 1_000)
    take = await ledger.take_account(connection, PROCESS)
    await ledger.hold_batch(connection, [hold], PROCESS)
    [settled] = await ledger.settle_batch(connection, [a_capture(hold, (payee, tokens))], take)
    assert settled.settled


async def sales(engine: AsyncEngine, now: datetime) -> list[int]:
    async with engine.connect() as connection:
        return sorted((await plans.sales_of_month(connection, now)).values())


async def test_sales_are_counted_anew_and_start_over_with_the_month(
    engine: AsyncEngine, connection: asyncpg.Connection
) -> None:
    assert not await count_sales(engine, NOW)
    async with engine.begin() as writing:
        wanted = PlanWanted(None, None, TIERS, None, "more for those who sell more")
        await set_plan(writing, OPERATOR, wanted, NOW)
    payer = await open_purse(connection, "consumer", 100_000_000)
    one, two = [await open_purse(connection, "provider") for _ in range(2)]
    await sell(connection, payer, one, 2_000)
    assert await count_sales(engine, NOW)
    assert await sales(engine, NOW) == [2_000_000]
    await sell(connection, payer, one, 3_000)
    await sell(connection, payer, two, 10)
    for whole in (False, False, True):
        assert await count_sales(engine, NOW, whole=whole)
        assert await sales(engine, NOW) == [10_000, 5_000_000]
    assert await sales(engine, NOW + timedelta(days=40)) == []


async def test_the_tier_that_is_reached_is_the_take_of_the_next_market(
    engine: AsyncEngine, connection: asyncpg.Connection
) -> None:
    async with engine.begin() as writing:
        await set_plan(writing, OPERATOR, PlanWanted(None, None, TIERS, None, "tiers"), NOW)
    payer = await open_purse(connection, "consumer", 100_000_000)
    payee = await open_purse(connection, "provider")
    provider = await connection.fetchval(
        "SELECT owner_id FROM ledger_accounts WHERE id = $1", payee
    )
    takes = []
    for tokens in (4_999, 1):
        await sell(connection, payer, payee, tokens)
        await count_sales(engine, NOW)
        async with engine.connect() as reading:
            takes.append((await plans.load_takes(reading, NOW)).take(provider, 0)[0])
    assert takes == [1_000, 500]

"""Holds that are opened ahead of their calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from broker.core.money.ahead import MANY_TIMES, WINDOW_S, Ready
from broker.errors import BalanceTooLow, Unavailable
from broker.flows.books.batch import LedgerBatcher
from broker.flows.books.lane_ahead import SHELVES_MAX, HoldTerms
from broker.store.books import budgets
from broker.store.books.budgets import Budgets
from broker.store.database import create_pool
from tests.integration.ledger.conftest import FUNDS_NANOS
from tests.integration.ledger.entries import (
    PROCESS,
    Standing,
    a_capture,
    a_hold,
    fund,
    open_key,
    standing,
)
from tests.integration.ledger.way import Way
from tests.waiting import until

CALL_NANOS = 1_000
CALLS = 40


@pytest.fixture
async def way(database_url: str) -> AsyncIterator[Way]:
    async with Way(database_url) as way:
        yield way


async def come(
    batcher: LedgerBatcher, account: UUID, key_id: str = "key", amount_nanos: int = CALL_NANOS
) -> list[Ready]:
    """Have calls come densely until a hold is ready; return what they took."""
    took: list[Ready | None] = []

    async def one_was_ready() -> bool:
        took.append(batcher.ahead.take(account, key_id, amount_nanos))
        return took[-1] is not None

    for _ in range(CALLS):
        await one_was_ready()
    await asyncio.sleep(WINDOW_S)
    await until(one_was_ready, 5.0)
    return [each for each in took if each is not None]


async def come_in_vain(
    batcher: LedgerBatcher, account: UUID, key_id: str = "key", amount_nanos: int = CALL_NANOS
) -> None:
    """Have as many calls come, and look that none finds a hold ready."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3 * WINDOW_S):
            await come(batcher, account, key_id, amount_nanos)


async def open_ids(connection: asyncpg.Connection) -> set[UUID]:
    return {row[0] for row in await connection.fetch("SELECT call_id FROM open_holds")}


async def test_calls_that_come_densely_find_holds_ready_which_are_as_durable_as_any(
    batcher: LedgerBatcher, connection: asyncpg.Connection, consumer: UUID, provider: UUID
) -> None:
    taken = await come(batcher, consumer)
    while (ready := batcher.ahead.take(consumer, "key", CALL_NANOS)) is not None:
        taken.append(ready)
    found = await open_ids(connection)
    assert len(taken) > 3
    assert {each.hold.call_id for each in taken} <= found
    assert len({each.id_text for each in taken}) == len(taken)
    for each in taken:
        assert CALL_NANOS <= each.hold.amount_nanos <= 2 * CALL_NANOS
        assert str(each.hold.call_id) == each.id_text
        assert await batcher.settle(a_capture(each.hold, (provider, 1)))
    spent = len(taken) * 1_000

    async def all_the_others_are_released() -> bool:
        return await standing(connection, consumer) == Standing(FUNDS_NANOS - spent, 0)

    await until(all_the_others_are_released)


async def test_what_no_call_takes_is_released_at_the_end(
    batcher: LedgerBatcher, connection: asyncpg.Connection, consumer: UUID
) -> None:
    taken = await come(batcher, consumer)
    assert len(await open_ids(connection)) > len(taken)
    await batcher.drain()
    assert await open_ids(connection) == {each.hold.call_id for each in taken}


async def test_a_call_that_needs_all_its_account_has_is_let_in_beside_holds_ahead(
    batcher: LedgerBatcher, connection: asyncpg.Connection, consumer: UUID
) -> None:
    for each in await come(batcher, consumer):
        await batcher.settle(a_capture(each.hold))
    assert (await standing(connection, consumer)).held_nanos > 0
    await batcher.hold(a_hold(consumer, FUNDS_NANOS), wait_s=5.0)
    assert await standing(connection, consumer) == Standing(FUNDS_NANOS, FUNDS_NANOS)


async def test_all_calls_that_are_refused_beside_holds_ahead_wait_for_these_and_are_let_in(
    batcher: LedgerBatcher, connection: asyncpg.Connection, consumer: UUID
) -> None:
    for each in await come(batcher, consumer):
        await batcher.settle(a_capture(each.hold))
    ahead_nanos = (await standing(connection, consumer)).held_nanos
    await batcher.hold(a_hold(consumer, FUNDS_NANOS - ahead_nanos))
    halves = [a_hold(consumer, ahead_nanos // 2) for _ in range(2)]
    await asyncio.gather(*(batcher.hold(each, wait_s=5.0) for each in halves))
    assert {each.call_id for each in halves} <= await open_ids(connection)


async def test_a_call_that_all_holds_ahead_would_not_make_room_for_is_refused_and_they_stay(
    batcher: LedgerBatcher, consumer: UUID
) -> None:
    async def one_is_ready_still() -> bool:
        await come(batcher, consumer)
        with pytest.raises(BalanceTooLow):
            await batcher.hold(a_hold(consumer, 2 * FUNDS_NANOS), wait_s=60.0)
        return batcher.ahead.take(consumer, "key", CALL_NANOS) is not None

    # On a busy machine what is ready may have waited too long by then.
    await until(one_is_ready_still)


async def test_calls_that_cost_more_than_the_books_can_say_have_none_asked_for(
    batcher: LedgerBatcher, consumer: UUID
) -> None:
    with capture_logs() as logs:
        await come_in_vain(batcher, consumer, amount_nanos=2**63)
    assert logs == []


async def test_keys_whose_calls_come_no_more_are_forgotten(
    batcher: LedgerBatcher, consumer: UUID
) -> None:
    await come(batcher, consumer)
    for number in range(SHELVES_MAX):
        batcher.ahead.take(consumer, f"key-{number}", CALL_NANOS)
    assert batcher.ahead.shelves == SHELVES_MAX

    async def all_are_forgotten() -> bool:
        return not batcher.ahead.shelves

    await until(all_are_forgotten)


async def test_an_account_with_money_for_few_calls_has_none_held_ahead(
    batcher: LedgerBatcher, connection: asyncpg.Connection, consumer: UUID
) -> None:
    little = a_hold(consumer, FUNDS_NANOS - (MANY_TIMES - 1) * CALL_NANOS)
    await batcher.hold(little)
    await come_in_vain(batcher, consumer)
    assert await open_ids(connection) == {little.call_id}


async def test_a_key_with_a_budget_has_none_held_ahead(
    batcher: LedgerBatcher, engine: AsyncEngine, connection: asyncpg.Connection, consumer: UUID
) -> None:
    key_id = await open_key(connection, consumer)
    async with engine.begin() as setting:
        await budgets.set_budgets(setting, key_id, Budgets(day_nanos=100 * CALL_NANOS))
    own = a_hold(consumer, CALL_NANOS, key_id=key_id)
    await batcher.hold(own)  # by which the broker learns of the budget
    await come_in_vain(batcher, consumer, key_id)
    assert await open_ids(connection) == {own.call_id}


async def test_no_call_goes_on_a_hold_from_before_its_keys_first_budget_once_that_is_known(
    batcher: LedgerBatcher, engine: AsyncEngine, connection: asyncpg.Connection, consumer: UUID
) -> None:
    key_id = await open_key(connection, consumer)
    taken = {each.hold.call_id for each in await come(batcher, consumer, key_id)}
    assert len(await open_ids(connection)) > len(taken)
    async with engine.begin() as setting:
        await budgets.set_budgets(setting, key_id, Budgets(total_nanos=CALL_NANOS))
    own = a_hold(consumer, CALL_NANOS, key_id="another")
    await batcher.hold(own)  # by which the broker learns of the budget
    assert batcher.ahead.take(consumer, key_id, CALL_NANOS) is None

    async def all_the_others_are_released() -> bool:
        return await open_ids(connection) == taken | {own.call_id}

    await until(all_the_others_are_released, WINDOW_S)


async def test_a_first_budget_counts_the_holds_that_were_opened_ahead_of_it(
    batcher: LedgerBatcher,
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
) -> None:
    key_id = await open_key(connection, consumer)
    taken = await come(batcher, consumer, key_id)
    async with engine.begin() as setting:
        await budgets.set_budgets(setting, key_id, Budgets(total_nanos=100 * CALL_NANOS))
    for each in taken:
        assert await batcher.settle(a_capture(each.hold, (provider, 1)))

    async def only_what_was_spent_counts() -> bool:
        row = await connection.fetchrow(
            "SELECT spent_nanos, held_nanos FROM budget_periods"
            " WHERE key_id = $1 AND kind = 'total'",
            key_id,
        )
        return tuple(row) == (len(taken) * 1_000, 0)

    await until(only_what_was_spent_counts)


async def test_no_call_goes_on_a_ready_hold_while_the_database_is_away(
    way: Way, connection: asyncpg.Connection, consumer: UUID, take: UUID
) -> None:
    await fund(connection, consumer, FUNDS_NANOS)
    pool = await create_pool(way.url)
    batcher = LedgerBatcher(pool, take, HoldTerms(PROCESS))
    batcher.start()
    await come(batcher, consumer)
    way.close()
    with pytest.raises(Unavailable):
        await batcher.hold(a_hold(consumer, CALL_NANOS))
    assert batcher.ahead.take(consumer, "key", CALL_NANOS) is None
    way.open = True
    await until(lambda: _is_again(batcher, consumer))
    await batcher.drain()
    await pool.close()


async def _is_again(batcher: LedgerBatcher, consumer: UUID) -> bool:
    await asyncio.sleep(0.01)
    return batcher.ahead.take(consumer, "key", CALL_NANOS) is not None


async def test_holds_ahead_whose_answer_was_lost_keep_no_money(
    way: Way, connection: asyncpg.Connection, consumer: UUID, take: UUID
) -> None:
    pool = await create_pool(way.url)
    batcher = LedgerBatcher(pool, take, HoldTerms(PROCESS))
    batcher.start()
    first = a_hold(consumer, CALL_NANOS)
    await batcher.hold(first)
    way.swallow_next_answer = True
    await come_in_vain(batcher, consumer)
    assert way.swallowed.is_set()

    async def only_the_first_is_held() -> bool:
        return await open_ids(connection) == {first.call_id}

    await until(only_the_first_is_held)
    await batcher.drain()
    await pool.close()

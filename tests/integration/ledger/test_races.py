"""Two connections at once: what READ COMMITTED makes of one account, one hold, and locks."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest

from broker.store import ledger
from tests.integration.ledger.conftest import FUNDS_NANOS
from tests.integration.ledger.entries import (
    PROCESS,
    Standing,
    a_capture,
    a_hold,
    fund,
    ledger_connection,
    open_account,
    standing,
)
from tests.integration.ledger.waiting import until_blocked


async def test_a_hold_that_waited_sees_what_the_one_before_it_took(
    database_url: str, connection: asyncpg.Connection, other: asyncpg.Connection, consumer: UUID
) -> None:
    third = await ledger_connection(database_url)
    transaction = other.transaction()
    await transaction.start()
    await ledger.hold_batch(other, [a_hold(consumer, 6_000_000)], PROCESS)
    waiting = [
        asyncio.create_task(ledger.hold_batch(each, [a_hold(consumer, 3_000_000)], PROCESS))
        for each in (connection, third)
    ]
    watcher = await ledger_connection(database_url)
    await until_blocked(watcher, 2)

    await transaction.commit()

    results = [(await task)[0] for task in waiting]
    assert sorted(result.accepted for result in results) == [False, True]
    assert await standing(watcher, consumer) == Standing(FUNDS_NANOS, 9_000_000)
    await third.close()
    await watcher.close()


async def test_what_became_of_a_hold_is_asked_of_who_is_just_opening_it(
    connection: asyncpg.Connection, other: asyncpg.Connection, consumer: UUID
) -> None:
    opened, given_up = a_hold(consumer, 1_000), a_hold(consumer, 2_000)
    transaction = other.transaction()
    await transaction.start()
    await ledger.hold_batch(other, [opened], PROCESS)
    with pytest.raises(asyncpg.LockNotAvailableError):
        await ledger.forestall(connection, [opened, given_up], 0.1)
    asking = asyncio.create_task(ledger.forestall(connection, [opened, given_up], 10.0))
    await asyncio.sleep(0.05)
    await transaction.commit()

    assert await asking == {opened.call_id}
    with pytest.raises(asyncpg.UniqueViolationError):
        await ledger.hold_batch(other, [a_hold(consumer, 3_000), given_up], PROCESS)
    assert await standing(connection, consumer) == Standing(FUNDS_NANOS, 1_000)
    assert not await connection.fetch("SELECT * FROM invariant_hold_is_open_or_settled")
    assert not await connection.fetch("SELECT * FROM replay_held_is_its_holds")


async def test_a_hold_that_waited_for_a_rollback_sees_the_money_back(
    database_url: str, connection: asyncpg.Connection, other: asyncpg.Connection, consumer: UUID
) -> None:
    transaction = other.transaction()
    await transaction.start()
    await ledger.hold_batch(other, [a_hold(consumer, 6_000_000)], PROCESS)
    waiting = asyncio.create_task(
        ledger.hold_batch(connection, [a_hold(consumer, 6_000_000)], PROCESS)
    )
    watcher = await ledger_connection(database_url)
    await until_blocked(watcher)
    await transaction.rollback()
    assert (await waiting)[0].accepted
    await watcher.close()


async def test_a_hold_that_waited_for_a_release_sees_the_money_back(
    database_url: str,
    connection: asyncpg.Connection,
    other: asyncpg.Connection,
    consumer: UUID,
    take: UUID,
) -> None:
    """Its update first meets the row as it was, in which the hold would be an overdraft."""
    whole = a_hold(consumer, FUNDS_NANOS)
    await ledger.hold_batch(connection, [whole], PROCESS)
    transaction = other.transaction()
    await transaction.start()
    await ledger.settle_batch(other, [a_capture(whole)], take)
    waiting = asyncio.create_task(
        ledger.hold_batch(connection, [a_hold(consumer, 6_000_000)], PROCESS)
    )
    watcher = await ledger_connection(database_url)
    await until_blocked(watcher)
    await transaction.commit()
    assert (await waiting)[0].accepted
    assert await standing(watcher, consumer) == Standing(FUNDS_NANOS, 6_000_000)
    await watcher.close()


async def test_a_hold_that_waited_for_money_sees_it(
    database_url: str, connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    poor = await open_account(connection, "consumer", 1)
    transaction = other.transaction()
    await transaction.start()
    await fund(other, poor, 1_000)
    waiting = asyncio.create_task(ledger.hold_batch(connection, [a_hold(poor, 1_001)], PROCESS))
    watcher = await ledger_connection(database_url)
    await until_blocked(watcher)
    await transaction.commit()
    assert (await waiting)[0].accepted
    assert await standing(watcher, poor) == Standing(1_001, 1_001)
    await watcher.close()


async def test_a_capture_that_waited_for_an_expiry_finds_the_hold_gone(
    database_url: str,
    connection: asyncpg.Connection,
    other: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
) -> None:
    hold = a_hold(consumer, 1_000_000, lasts_s=-1)
    await ledger.hold_batch(connection, [hold], PROCESS)
    transaction = other.transaction()
    await transaction.start()
    assert await ledger.expire_holds(other, datetime.now(UTC), 10) == 1
    capture = a_capture(hold, (provider, 10))
    waiting = asyncio.create_task(ledger.settle_batch(connection, [capture], take))
    watcher = await ledger_connection(database_url)
    await until_blocked(watcher)

    await transaction.commit()

    assert not (await waiting)[0].settled
    assert await standing(watcher, provider) == Standing(0, 0)
    assert await standing(watcher, consumer) == Standing(FUNDS_NANOS, 0)
    await watcher.close()


async def test_an_expiry_leaves_a_hold_that_is_being_captured(
    connection: asyncpg.Connection,
    other: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
) -> None:
    hold = a_hold(consumer, 1_000_000, lasts_s=-1)
    await ledger.hold_batch(connection, [hold], PROCESS)
    async with other.transaction():
        await ledger.settle_batch(other, [a_capture(hold, (provider, 10))], take)
        assert await ledger.expire_holds(connection, datetime.now(UTC), 10) == 0
    assert await ledger.expire_holds(connection, datetime.now(UTC), 10) == 0
    assert (await standing(connection, provider)).posted_nanos == 9_000


async def test_two_captures_of_one_hold_have_one_winner(
    connection: asyncpg.Connection,
    other: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
) -> None:
    for _ in range(30):
        hold = a_hold(consumer, 100_000)
        await ledger.hold_batch(connection, [hold], PROCESS)
        results = await asyncio.gather(
            *(
                ledger.settle_batch(each, [a_capture(hold, (provider, tokens))], take)
                for each, tokens in ((connection, 10), (other, 20))
            )
        )
        assert sorted(result.settled for (result,) in results) == [False, True]


async def test_of_a_capture_a_release_an_orphanage_and_an_expiry_one_wins_each_hold(
    database_url: str,
    connection: asyncpg.Connection,
    other: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
) -> None:
    expiring, burying = [await ledger_connection(database_url) for _ in range(2)]
    order = random.Random(3)
    captured = 0
    for _ in range(25):
        holds = [a_hold(consumer, 10_000, lasts_s=-1) for _ in range(8)]
        await ledger.hold_batch(connection, holds, PROCESS)
        captures = [a_capture(each, (provider, 10)) for each in order.sample(holds, 6)]
        releases = [a_capture(each) for each in order.sample(holds, 6)]
        deeds = [
            ledger.settle_batch(connection, captures, take),
            ledger.settle_batch(other, releases, take),
            ledger.expire_holds(expiring, datetime.now(UTC), 3),
            ledger.release_holds_of(burying, [PROCESS], 3),
        ]
        order.shuffle(deeds)
        await asyncio.gather(*deeds)
        await ledger.release_holds_of(burying, [PROCESS], 8)
        for capture in captures:
            kind, charge = (await ledger.settled_as(connection, [capture.call_id]))[capture.call_id]
            assert (charge > 0) == (kind == "captured")
            captured += charge > 0
    assert await connection.fetchval("SELECT count(*) FROM settlements") == 25 * 8
    assert await standing(connection, provider) == Standing(captured * 9_000, 0)
    assert await standing(connection, consumer) == Standing(FUNDS_NANOS - captured * 10_000, 0)
    await expiring.close()
    await burying.close()


async def test_batches_in_opposite_orders_never_wait_for_each_other_in_a_circle(
    database_url: str, connection: asyncpg.Connection, take: UUID
) -> None:
    consumers = [await open_account(connection, "consumer", FUNDS_NANOS) for _ in range(6)]
    providers = [await open_account(connection, "provider") for _ in range(6)]
    order = random.Random(7)

    async def trade() -> None:
        mine = await ledger_connection(database_url)
        for _ in range(25):
            payers = order.sample(consumers, 6) + order.sample(consumers, 6)
            holds = [a_hold(payer, 20_000) for payer in payers]
            results = await ledger.hold_batch(mine, holds, PROCESS)
            assert all(result.accepted for result in results)
            order.shuffle(holds)
            captures = [a_capture(hold, (order.choice(providers), 10)) for hold in holds]
            settled = await ledger.settle_batch(mine, captures, take)
            assert all(result.settled for result in settled)
        await mine.close()

    await asyncio.gather(*(trade() for _ in range(4)))

    earned = [(await standing(connection, each)).posted_nanos for each in providers]
    assert sum(earned) == 4 * 25 * 12 * 9_000

"""Budgets in the statements of the ledger: what counts, when, and what never happens."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.errors import NotFound, RequestMalformed
from broker.flows.books.seal import seal
from broker.flows.books.sweep import sweep_expired
from broker.store import ledger
from broker.store.books import budgets
from broker.store.books.budgeted_keys import BudgetedKeys
from broker.store.books.budgets import BudgetKind, Budgets, BudgetStanding
from tests.integration.ledger.conftest import FUNDS_NANOS
from tests.integration.ledger.entries import (
    PROCESS,
    Standing,
    a_capture,
    a_hold,
    open_key,
    standing,
)
from tests.integration.ledger.waiting import until_blocked

LAST_OF_JANUARY = datetime(2035, 1, 31, 23, 59, 59, tzinfo=UTC)
LIMIT_NANOS = 100_000


@pytest.fixture
async def key(connection: asyncpg.Connection, consumer: UUID) -> str:
    return await open_key(connection, consumer)


async def set_budgets(engine: AsyncEngine, key: str, limits: Budgets) -> None:
    async with engine.begin() as connection:
        await budgets.set_budgets(connection, key, limits)


async def figures(engine: AsyncEngine, key: str, at: datetime | None = None) -> dict[str, tuple]:
    """Limit, spent and held by kind."""
    async with engine.connect() as connection:
        stand = await budgets.read_budgets(connection, key, at or datetime.now(UTC))
    return {
        each.kind.value: (each.limit_nanos, each.spent_nanos, each.held_nanos) for each in stand
    }


async def hold(
    connection: asyncpg.Connection, *holds: ledger.Hold, known: BudgetedKeys | None = None
) -> list[bool]:
    """Ask, and once more for those that only had to wait for their period to be opened."""
    results = await ledger.hold_batch(connection, holds, PROCESS, known)
    refused = [n for n, result in enumerate(results) if not result.accepted]
    again = [holds[n] for n in refused if results[n].budget is None]
    if again:
        fresh = iter(await ledger.hold_batch(connection, again, PROCESS, known))
        for n in refused:
            results[n] = next(fresh) if results[n].budget is None else results[n]
    return [result.accepted for result in results]


async def test_what_is_held_and_spent_is_counted_by_day_month_and_in_total(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
    key: str,
) -> None:
    await set_budgets(engine, key, Budgets(day_nanos=50_000, total_nanos=LIMIT_NANOS))
    first, second = (a_hold(consumer, 20_000, key_id=key) for _ in range(2))
    assert await hold(connection, first, second) == [True, True]
    await ledger.settle_batch(connection, [a_capture(first, (provider, 7))], take)
    assert await figures(engine, key) == {
        "day": (50_000, 7_000, 20_000),
        "month": (None, 7_000, 20_000),
        "total": (LIMIT_NANOS, 7_000, 20_000),
    }


async def test_the_last_nano_fits_and_the_next_does_not(
    engine: AsyncEngine, connection: asyncpg.Connection, consumer: UUID, key: str
) -> None:
    await set_budgets(engine, key, Budgets(month_nanos=LIMIT_NANOS))
    amounts = [LIMIT_NANOS - 1, 1, 1]
    holds = [a_hold(consumer, amount, key_id=key) for amount in amounts]
    assert await hold(connection, *holds) == [True, True, False]
    assert await standing(connection, consumer) == Standing(FUNDS_NANOS, LIMIT_NANOS)


@pytest.mark.parametrize(
    ("limits", "kind"),
    [
        (Budgets(day_nanos=10_000, month_nanos=20_000), BudgetKind.DAY),
        (Budgets(day_nanos=20_000, total_nanos=10_000), BudgetKind.TOTAL),
        # Of two in the way, that which no end of a call will make room in.
        (Budgets(day_nanos=14_000, month_nanos=15_000), BudgetKind.DAY),
    ],
)
async def test_the_refused_are_told_which_budget_is_in_the_way(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
    key: str,
    limits: Budgets,
    kind: BudgetKind,
) -> None:
    await set_budgets(engine, key, limits)
    first, second = a_hold(consumer, 5_000, key_id=key), a_hold(consumer, 4_000, key_id=key)
    assert await hold(connection, first, second) == [True, True]
    await ledger.settle_batch(connection, [a_capture(first, (provider, 5))], take)
    [refused] = await ledger.hold_batch(connection, [a_hold(consumer, 10_000, key_id=key)], PROCESS)
    limit = {"day": limits.day_nanos, "total": limits.total_nanos}[kind.value]
    assert refused.budget == BudgetStanding(kind, limit, 5_000, 4_000)


async def test_a_hold_counts_in_the_periods_of_its_admission_also_when_it_is_settled_later(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
    key: str,
) -> None:
    await set_budgets(engine, key, Budgets(10_000, 10_000, LIMIT_NANOS))
    february = LAST_OF_JANUARY + timedelta(seconds=2)
    late = a_hold(consumer, 10_000, key_id=key, at=LAST_OF_JANUARY)
    early = a_hold(consumer, 10_000, key_id=key, at=february)
    assert await hold(connection, late) == [True]
    assert await hold(connection, early) == [True], "a new day has a budget of its own"
    await ledger.settle_batch(
        connection, [a_capture(early, (provider, 1)), a_capture(late, (provider, 9))], take
    )
    assert await figures(engine, key, LAST_OF_JANUARY) == {
        "day": (10_000, 9_000, 0),
        "month": (10_000, 9_000, 0),
        "total": (LIMIT_NANOS, 10_000, 0),
    }
    assert (await figures(engine, key, february))["day"] == (10_000, 1_000, 0)
    assert (await figures(engine, key, february))["month"] == (10_000, 1_000, 0)


async def test_what_expires_or_is_released_is_given_back_in_its_own_periods(
    engine: AsyncEngine,
    pool: asyncpg.Pool,
    connection: asyncpg.Connection,
    consumer: UUID,
    take: UUID,
    key: str,
) -> None:
    await set_budgets(engine, key, Budgets(*[30_000] * 3))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    expired = a_hold(consumer, 10_000, -1, key_id=key, at=yesterday)
    orphan, released = (a_hold(consumer, 10_000, key_id=key) for _ in range(2))
    assert await hold(connection, expired, orphan, released) == [True] * 3
    assert (await figures(engine, key))["total"] == (30_000, 0, 30_000)
    assert await sweep_expired(pool, datetime.now(UTC)) == 1
    assert (await figures(engine, key, yesterday))["day"] == (30_000, 0, 0)
    await ledger.settle_batch(connection, [a_capture(released)], take)
    assert (await figures(engine, key))["day"] == (30_000, 0, 10_000)
    assert await ledger.release_holds_of(connection, [PROCESS], 10) == 1
    assert (await figures(engine, key))["total"] == (30_000, 0, 0)


async def test_a_changed_budget_works_at_once(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
    key: str,
) -> None:
    def one() -> ledger.Hold:
        return a_hold(consumer, 10_000, key_id=key)

    known = BudgetedKeys()
    await set_budgets(engine, key, Budgets(day_nanos=15_000))
    first = one()
    assert await hold(connection, first, known=known) == [True]
    assert await hold(connection, one(), known=known) == [False]
    await set_budgets(engine, key, Budgets(day_nanos=20_000))
    second = one()
    assert await hold(connection, second, known=known) == [True]
    await ledger.settle_batch(connection, [a_capture(first, (provider, 9))], take)
    await set_budgets(engine, key, Budgets(day_nanos=1))
    assert await hold(connection, a_hold(consumer, 1, key_id=key), known=known) == [False]
    await ledger.settle_batch(connection, [a_capture(second, (provider, 10))], take)
    assert (await figures(engine, key))["day"] == (1, 19_000, 0)
    await set_budgets(engine, key, Budgets(day_nanos=19_001))
    assert await hold(connection, a_hold(consumer, 2, key_id=key), known=known) == [False]
    assert await hold(connection, a_hold(consumer, 1, key_id=key), known=known) == [True]
    await set_budgets(engine, key, Budgets())
    assert await hold(connection, a_hold(consumer, 500_000, key_id=key), known=known) == [True]
    assert (await figures(engine, key))["month"] == (None, 19_000, 500_001)


async def test_a_first_budget_works_at_once_and_counts_what_the_key_had_spent(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
    key: str,
) -> None:
    known = BudgetedKeys()
    before, other = a_hold(consumer, 10_000, key_id=key), a_hold(consumer, 10_000)
    assert await hold(connection, before, other, known=known) == [True, True]
    owner = await connection.fetchval("SELECT account_id FROM keys WHERE id = $1", key)
    captures = [a_capture(each, (provider, 8)) for each in (before, other)]
    recorded = [replace(each, record=replace(each.record, account_id=owner)) for each in captures]
    await ledger.settle_batch(connection, recorded, take, known)
    await set_budgets(engine, key, Budgets(day_nanos=10_000))
    assert (await figures(engine, key))["day"] == (10_000, 8_000, 0)
    asked = [a_hold(consumer, amount, key_id=key) for amount in (2_001, 2_000)]
    assert await hold(connection, asked[0], known=known) == [False]
    assert await hold(connection, asked[1], known=known) == [True]
    # A process that has not heard of it yet settles it all the same.
    [settled] = await ledger.settle_batch(
        connection, [a_capture(asked[1], (provider, 2))], take, BudgetedKeys()
    )
    assert settled.settled
    assert (await figures(engine, key))["total"] == (None, 10_000, 0)


async def test_keys_without_budgets_are_not_counted(
    engine: AsyncEngine, connection: asyncpg.Connection, consumer: UUID, key: str
) -> None:
    await set_budgets(engine, key, Budgets())
    known = BudgetedKeys()
    for knows in (known, None):
        assert await hold(connection, a_hold(consumer, 10_000, key_id=key), known=knows) == [True]
    assert await figures(engine, key) == {}
    assert await connection.fetchval("SELECT count(budgeted) FROM holds") == 0
    assert await connection.fetchval("SELECT count(budget_key_id) FROM open_holds") == 0


async def test_a_hold_that_waited_for_the_budget_sees_what_the_one_before_it_took(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    other: asyncpg.Connection,
    database_url: str,
    consumer: UUID,
    key: str,
) -> None:
    await set_budgets(engine, key, Budgets(total_nanos=LIMIT_NANOS))
    assert await hold(connection, a_hold(consumer, 1, key_id=key)) == [True]
    transaction = other.transaction()
    await transaction.start()
    assert await hold(other, a_hold(consumer, 60_000, key_id=key)) == [True]
    waiting = asyncio.create_task(hold(connection, a_hold(consumer, 60_000, key_id=key)))
    watcher = await asyncpg.connect(database_url)
    await until_blocked(watcher)
    await transaction.commit()
    assert await waiting == [False]
    await watcher.close()


async def test_a_hold_that_waited_for_a_release_finds_the_budget_free(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    other: asyncpg.Connection,
    database_url: str,
    consumer: UUID,
    take: UUID,
    key: str,
) -> None:
    """Its update first meets the budget as it was, which has no room."""
    await set_budgets(engine, key, Budgets(total_nanos=LIMIT_NANOS))
    whole = a_hold(consumer, LIMIT_NANOS, key_id=key)
    assert await hold(connection, whole) == [True]
    transaction = other.transaction()
    await transaction.start()
    await ledger.settle_batch(other, [a_capture(whole)], take)
    waiting = asyncio.create_task(hold(connection, a_hold(consumer, 60_000, key_id=key)))
    watcher = await asyncpg.connect(database_url)
    await until_blocked(watcher)
    await transaction.commit()
    assert await waiting == [True]
    await watcher.close()


async def test_the_schema_itself_refuses_to_go_beyond_a_limit(
    engine: AsyncEngine, connection: asyncpg.Connection, consumer: UUID, key: str
) -> None:
    await set_budgets(engine, key, Budgets(day_nanos=LIMIT_NANOS))
    assert await hold(connection, a_hold(consumer, LIMIT_NANOS, key_id=key)) == [True]
    with pytest.raises(asyncpg.CheckViolationError, match="within_limit"):
        await connection.execute("UPDATE budget_periods SET spent_nanos = spent_nanos + 1")


@pytest.mark.parametrize(
    ("tampering", "view"),
    [
        ("UPDATE budget_periods SET held_nanos = 7 WHERE kind = 'day'", "held_is_open_holds"),
        ("UPDATE budget_periods SET spent_nanos = spent_nanos + 7", "day_is_its_charges"),
        (
            "UPDATE budget_periods SET spent_nanos = spent_nanos + 7 WHERE kind = 'month'",
            "periods_sum_up",
        ),
        (
            "UPDATE budget_periods SET spent_nanos = spent_nanos + 7 WHERE kind = 'total'",
            "periods_sum_up",
        ),
        (
            "UPDATE budget_periods SET spent_nanos = spent_nanos - 7, refunded_nanos = 7",
            "day_is_refunded_by_notes",
        ),
    ],
)
@pytest.mark.parametrize("sealed", [False, True])
async def test_a_tampered_budget_is_an_alarm(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
    key: str,
    tampering: str,
    view: str,
    sealed: bool,
) -> None:
    if sealed:  # in the middle of the day
        now = datetime.now(UTC)
        assert await seal(engine, now - timedelta(hours=1), now, for_checks=True)
    await set_budgets(engine, key, Budgets(day_nanos=LIMIT_NANOS))
    first, second = (a_hold(consumer, 10_000, key_id=key) for _ in range(2))
    assert await hold(connection, first, second) == [True, True]
    await ledger.settle_batch(connection, [a_capture(first, (provider, 10))], take)
    query = f"SELECT count(*) FROM invariant_budget_{view}"
    assert await connection.fetchval(query) == 0
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(tampering)
    assert await connection.fetchval(query) > 0
    await transaction.rollback()


async def test_what_is_no_budget_is_refused_by_name(engine: AsyncEngine, key: str) -> None:
    for absurd in (-1, 2**63):
        with pytest.raises(RequestMalformed):
            await set_budgets(engine, key, Budgets(day_nanos=absurd))
    with pytest.raises(NotFound):
        await set_budgets(engine, "nobody", Budgets(day_nanos=1))

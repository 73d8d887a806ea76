"""Seals: what they fold, when they are made, and that no fault escapes the checks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.errors import RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.flows.access.open_account import open_account
from broker.flows.books.check import check
from broker.flows.books.seal import seal, seal_due
from broker.flows.money.topup import top_up
from broker.store import ledger
from broker.store.access.accounts import Role
from broker.store.books import invariants
from broker.store.database import create_engine
from tests.integration.ledger.entries import PROCESS, a_capture, a_hold, backdate, trade

OPERATOR = Caller(UUID(int=0), "office", Role.OPERATOR)
NOW = datetime.now(UTC)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url, connections_max=2)
    yield engine
    await engine.dispose()


async def test_seals_fold_what_came_before_and_checks_go_on_from_them(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
) -> None:
    await trade(connection, consumer, provider, take)
    await backdate(connection, timedelta(hours=5))
    now = datetime.now(UTC)
    assert await seal(engine, now - timedelta(hours=3), now)
    assert not await seal(engine, now - timedelta(hours=3), now)
    await trade(connection, consumer, provider, take)
    await backdate(connection, timedelta(hours=2))
    assert await seal(engine, now - timedelta(hours=1, minutes=1), now)
    await trade(connection, consumer, provider, take)

    assert await check(engine, replay=True) == []
    sealed = await connection.fetch(
        "SELECT posted_nanos FROM seals WHERE ledger_account_id = $1 ORDER BY sealed_before",
        provider,
    )
    assert [row["posted_nanos"] for row in sealed] == [9_000, 18_000]


async def test_a_hold_from_before_a_seal_may_settle_after_it(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
) -> None:
    now = datetime.now(UTC)
    hold = replace(a_hold(consumer, 100_000), created_at=now - timedelta(hours=2))
    await ledger.hold_batch(connection, [hold], PROCESS)
    await seal(engine, now - timedelta(hours=1), now)
    assert await check(engine, replay=True) == []
    await ledger.settle_batch(connection, [a_capture(hold, (provider, 10))], take)
    assert await check(engine, replay=True) == []


async def test_a_seal_is_old_and_immutable(
    engine: AsyncEngine, connection: asyncpg.Connection, consumer: UUID
) -> None:
    now = datetime.now(UTC)
    assert consumer, "funded"
    await backdate(connection, timedelta(hours=3))
    with pytest.raises(RequestMalformed):
        await seal(engine, now - timedelta(minutes=59), now)
    await seal(engine, now - timedelta(hours=1), now)
    for table in ("seals", "seal_periods"):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await connection.execute(f"DELETE FROM {table}")


async def test_a_worker_whose_clock_is_fast_seals_nothing_that_is_still_being_written(
    engine: AsyncEngine,
) -> None:
    fast = datetime.now(UTC) + timedelta(hours=2)
    with pytest.raises(RequestMalformed):
        await seal(engine, fast - timedelta(hours=1), fast)


async def test_a_transfer_of_a_process_whose_clock_is_late_falls_behind_no_seal(
    engine: AsyncEngine,
) -> None:
    now = datetime.now(UTC)
    await open_account(engine, "acme", Role.CONSUMER, author="office", now=NOW)
    await seal(engine, now - timedelta(hours=1), now)
    await top_up(engine, OPERATOR, "acme", 5_000, "paid", now - timedelta(hours=2))
    assert await check(engine) == []


async def test_a_day_is_sealed_once_and_again_only_after_many_calls(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
) -> None:
    midnight = NOW.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
    for _ in range(2):
        await trade(connection, consumer, provider, take)
    await backdate(connection, NOW - midnight - timedelta(hours=3))

    def at(hours: float) -> datetime:
        return midnight + timedelta(hours=hours)

    assert await seal_due(engine, at(1.4)), "the first there is"
    assert not await seal_due(engine, at(5.4), open_max=2)
    assert await seal_due(engine, at(5.4), open_max=1)
    assert not await seal_due(engine, at(6.4), open_max=1), "what was sealed counts no more"
    assert await seal_due(engine, at(25.4)), "a day has begun"
    periods = await connection.fetch("SELECT * FROM seal_periods ORDER BY sealed_before")
    found = [(row["sealed_before"], row["for_checks"]) for row in periods]
    assert found == [(at(0), False), (at(4), True), (at(24), False)]
    assert await check(engine, replay=True) == []


@pytest.mark.parametrize("sealed", [False, True])
async def test_every_tampered_record_raises_an_alarm(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
    sealed: bool,
) -> None:
    if sealed:
        await trade(connection, consumer, provider, take)
        await backdate(connection, timedelta(hours=3))
        await seal(engine, NOW - timedelta(hours=2), NOW, for_checks=True)
    await trade(connection, consumer, provider, take)
    opened = a_hold(consumer, 5_000)
    await ledger.hold_batch(connection, [opened], PROCESS)
    of_seals = {"replay_seal_is_its_entries"} if sealed else set[str]()
    for statement, views in _TAMPERING.items():
        async with engine.connect() as inside:
            await inside.exec_driver_sql("SET session_replication_role = replica")
            await inside.exec_driver_sql(statement.replace("PROVIDER", f"'{provider}'"))
            await invariants.go_by_the_last_seal(inside)
            names = await invariants.view_names(inside, "invariant_")
            names += await invariants.view_names(inside, "replay_")
            found = {name for name in names if await invariants.alarms_of(inside, name)}
            await inside.rollback()
        assert found - of_seals == views, statement
    assert await check(engine, replay=True) == []


_OF_LINES = {
    "invariant_balance_is_its_entries",
    "invariant_lines_sum_to_charge",
    "replay_balance_is_its_entries",
    "replay_charge_is_its_lines",
}
_TAMPERING = {
    "UPDATE balances SET posted_nanos = posted_nanos + 1 WHERE ledger_account_id = PROVIDER": {
        "invariant_books_sum_to_zero",
        "invariant_balance_is_its_entries",
        "replay_balance_is_its_entries",
    },
    "DELETE FROM balances WHERE ledger_account_id = PROVIDER": {
        "invariant_books_sum_to_zero",
        "invariant_balance_is_its_entries",
        "replay_balance_is_its_entries",
    },
    "UPDATE balances SET held_nanos = held_nanos + 1 WHERE held_nanos = 5000": {
        "invariant_held_is_open_holds",
        "replay_held_is_its_holds",
    },
    "DELETE FROM open_holds": {
        "invariant_held_is_open_holds",
        "invariant_hold_is_open_or_settled",
    },
    "WITH less AS (UPDATE balances SET held_nanos = 4999 WHERE held_nanos = 5000)"
    " UPDATE open_holds SET amount_nanos = 4999": {
        "invariant_hold_is_open_or_settled",
        "replay_held_is_its_holds",
    },
    "INSERT INTO open_holds (call_id, ledger_account_id, process_id, amount_nanos, created_at,"
    " expires_at) SELECT call_id, ledger_account_id, 1, hold_nanos, held_at, held_at"
    " FROM settlements": {
        "invariant_held_is_open_holds",
        "invariant_hold_is_open_or_settled",
    },
    "DELETE FROM holds": {
        "invariant_hold_is_open_or_settled",
        "replay_held_is_its_holds",
    },
    "DELETE FROM settlements": {
        "invariant_hold_is_open_or_settled",
        "invariant_lines_sum_to_charge",
        "invariant_served_call_is_settled",
        "replay_charge_is_its_lines",
        "replay_held_is_its_holds",
    },
    "INSERT INTO settlements SELECT call_id, ledger_account_id, 'released', hold_nanos, 0, held_at,"
    " settled_at + interval '1 s' FROM settlements": {
        "invariant_hold_is_open_or_settled",
        "invariant_served_call_is_settled",
        "replay_held_is_its_holds",
    },
    "UPDATE settlement_lines SET settled_at = settled_at + interval '1 ms'": {
        "invariant_lines_sum_to_charge",
    },
    "UPDATE settlement_lines SET charge_nanos = charge_nanos + 1, take_nanos = take_nanos + 1": (
        _OF_LINES
    ),
    "DELETE FROM settlement_lines": _OF_LINES,
    "UPDATE calls SET charge_nanos = 1": {"invariant_served_call_is_settled"},
}

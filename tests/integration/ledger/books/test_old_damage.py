"""Whatever is altered in the books is found: today's in the minute, that of long ago by night."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.flows.books.check import check
from broker.flows.books.seal import seal
from broker.store import ledger
from broker.store.books import budgets, invariants
from broker.store.books.budgeted_keys import open_periods
from broker.store.books.budgets import Budgets
from broker.store.database import create_engine
from tests.integration.ledger.conftest import FUNDS_NANOS
from tests.integration.ledger.entries import (
    PROCESS,
    a_capture,
    a_hold,
    fund,
    open_account,
    open_key,
)

NOW = datetime.now(UTC)
LONG_AGO = (NOW - timedelta(days=40)).replace(hour=5)
OLD_SEAL = LONG_AGO + timedelta(seconds=1)
SEALED_TODAY = NOW - timedelta(hours=3)
SEALED = NOW - timedelta(hours=1, minutes=30)

_BALANCE, _CHARGE = "replay_balance_is_its_entries", "replay_charge_is_its_lines"
_HELD, _DAY = "replay_held_is_its_holds", "replay_budget_day_is_its_charges"
_SUM = "replay_budget_periods_sum_up"
_OF_A_CALL = {
    "UPDATE settlement_lines SET charge_nanos = charge_nanos + 1, take_nanos = take_nanos + 1"
    " WHERE call_id = $1": {_BALANCE, _CHARGE},
    "UPDATE settlement_lines SET payee_id = payer_id WHERE call_id = $1": {_BALANCE},
    "DELETE FROM settlement_lines WHERE call_id = $1": {_BALANCE, _CHARGE},
    "INSERT INTO settlement_lines SELECT call_id, 2::smallint, settled_at, endpoint_id, payer_id,"
    " payee_id, take_id, tokens_in, tokens_out, rate_in_micros, rate_out_micros, rate_call_nanos,"
    " price_version, charge_nanos, take_nanos, earnings_nanos FROM settlement_lines"
    " WHERE call_id = $1": {_BALANCE, _CHARGE},
    "DELETE FROM settlements WHERE call_id = $1": {_CHARGE, _HELD, _DAY},
    "UPDATE settlements SET charge_nanos = charge_nanos - 1 WHERE call_id = $1": {_CHARGE, _DAY},
    "DELETE FROM holds WHERE call_id = $1": {_HELD, _DAY},
    "INSERT INTO holds SELECT uuidv7(), ledger_account_id, key_id, amount_nanos, created_at,"
    " expires_at, budgeted FROM holds WHERE call_id = $1": {_HELD},
    "UPDATE budget_periods p SET spent_nanos = spent_nanos + 1 FROM holds h WHERE h.call_id = $1"
    " AND p.kind = 'day' AND p.begins_at = date_trunc('day', h.created_at, 'UTC')": {_DAY, _SUM},
}
_OF_A_SEAL = (
    "UPDATE seals SET posted_nanos = posted_nanos + 1 WHERE sealed_before = $1",
    "DELETE FROM seals WHERE sealed_before = $1",
)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url, connections_max=2)
    yield engine
    await engine.dispose()


@pytest.fixture
async def idle(connection: asyncpg.Connection) -> UUID:
    """An account that was given money long ago, and has not moved since."""
    return await open_account(connection, "consumer", 5_000)


@pytest.fixture
async def called(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
    idle: UUID,
) -> list[UUID]:
    """Calls of a key with a budget: of long ago, of today and sealed, and of now."""
    assert idle, "funded, with the consumer, before anything is sealed"
    await _as_replica(connection, "UPDATE transfers SET created_at = $1", LONG_AGO)
    key = await open_key(connection, consumer)
    async with engine.begin() as inside:
        await budgets.set_budgets(inside, key, Budgets(day_nanos=10_000_000))
    calls = []
    for at, sealed in (
        (LONG_AGO, OLD_SEAL),
        (SEALED_TODAY, SEALED),
        (NOW, None),
    ):
        wanted = a_hold(consumer, 100_000, key_id=key, at=at)
        await open_periods(connection, [wanted])
        (held,) = await ledger.hold_batch(connection, [wanted], PROCESS)
        assert held.accepted
        await ledger.settle_batch(connection, [a_capture(wanted, (provider, 10))], take)
        calls.append(wanted.call_id)
        if sealed is not None:
            for table in ("settlements", "settlement_lines"):
                change = f"UPDATE {table} SET settled_at = $2 WHERE call_id = $1"
                await _as_replica(connection, change, wanted.call_id, at)
            assert await seal(engine, sealed, NOW, for_checks=True)
        if sealed == OLD_SEAL:
            await fund(connection, consumer, 7)
            change = "UPDATE transfers SET created_at = $1 WHERE amount_nanos = 7"
            await _as_replica(connection, change, OLD_SEAL + timedelta(hours=1))
    assert await check(engine, replay=True) == []
    return calls


async def _as_replica(connection: asyncpg.Connection, change: str, *values: object) -> None:
    """Change a record, which the schema refuses to everybody else."""
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(change, *values)


async def _found(engine: AsyncEngine, change: str, value: object) -> set[str]:
    """Return the views that a change is found by; it is undone again."""
    async with engine.connect() as connection:
        await connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        changed = await connection.exec_driver_sql(change, (value,))
        assert changed.rowcount, change
        await invariants.go_by_the_last_seal(connection)
        names = await invariants.view_names(connection, "")
        names = [each for each in names if each.startswith(("invariant_", "replay_"))]
        found = {each for each in names if await invariants.alarms_of(connection, each)}
        await connection.rollback()
    return found


def _replays(found: set[str]) -> set[str]:
    return {each for each in found if each.startswith("replay_")}


async def test_a_seal_has_a_row_for_each_account_that_moved_and_no_other(
    connection: asyncpg.Connection, called: list[UUID], provider: UUID, idle: UUID
) -> None:
    assert called
    rows = await connection.fetch("SELECT ledger_account_id, posted_nanos FROM seals")
    found = [(row["ledger_account_id"], row["posted_nanos"]) for row in rows]
    assert [nanos for account, nanos in found if account == provider] == [9_000, 18_000]
    assert [nanos for account, nanos in found if account == idle] == [5_000]
    assert len(found) == 5 + 4, "world, take, and those that trade; then without the idle one"


async def test_an_account_that_moves_again_is_sealed_on_top_of_its_newest_row(
    connection: asyncpg.Connection, engine: AsyncEngine, called: list[UUID], idle: UUID
) -> None:
    assert called
    await fund(connection, idle, 11)
    change = "UPDATE transfers SET created_at = $1 WHERE amount_nanos = 11"
    await _as_replica(connection, change, NOW - timedelta(minutes=70))
    assert await seal(engine, NOW - timedelta(hours=1), NOW)
    assert await check(engine, replay=True) == []
    query = "SELECT posted_nanos FROM seals WHERE ledger_account_id = $1 ORDER BY sealed_before"
    assert [row[0] for row in await connection.fetch(query, idle)] == [5_000, 5_011]


async def test_a_record_of_any_age_that_was_altered_deleted_or_doubled_is_found(
    engine: AsyncEngine, called: list[UUID]
) -> None:
    for change, views in _OF_A_CALL.items():
        for call in called:
            found = await _found(engine, change, call)
            assert _replays(found) == views, (change, called.index(call))
        assert found - views, f"the minute's check finds what was done to the newest call: {change}"


async def test_a_seal_of_any_age_that_was_altered_or_deleted_is_found(
    connection: asyncpg.Connection, engine: AsyncEngine, called: list[UUID]
) -> None:
    assert called
    for (sealed_before,) in await connection.fetch("SELECT sealed_before FROM seal_periods"):
        for change in _OF_A_SEAL:
            assert _BALANCE in await _found(engine, change, sealed_before), change


async def test_a_balance_that_has_not_moved_for_long_is_looked_at_each_minute(
    engine: AsyncEngine, called: list[UUID], idle: UUID
) -> None:
    assert called
    wanted = {"invariant_balance_is_its_entries", "invariant_books_sum_to_zero", _BALANCE}
    where = "WHERE ledger_account_id = $1"
    more = f"UPDATE balances SET posted_nanos = posted_nanos + 1 {where}"
    assert await _found(engine, more, idle) == wanted
    gone = await _found(engine, f"DELETE FROM balances {where}", idle)
    assert gone == wanted - {"invariant_balance_is_its_entries"}


async def test_charges_that_are_sealed_count_in_their_budgets_day(
    connection: asyncpg.Connection, engine: AsyncEngine, called: list[UUID]
) -> None:
    assert called
    query = "SELECT sealed_before, charged_nanos FROM budget_seals ORDER BY sealed_before"
    sealed = [tuple(row) for row in await connection.fetch(query)]
    of_its_day = SEALED_TODAY.date() == SEALED.date()  # else midnight was between
    assert sealed == [(OLD_SEAL, 10_000), (SEALED, 10_000)][: 1 + of_its_day]
    change = "UPDATE budget_seals SET charged_nanos = 9_000 WHERE sealed_before = $1"
    if of_its_day:
        assert await _found(engine, change, SEALED) == {"invariant_budget_day_is_its_charges"}
    assert await seal(engine, NOW - timedelta(hours=1), NOW, for_checks=True)
    assert await check(engine) == []
    assert OLD_SEAL not in [row[0] for row in await connection.fetch(query)], "of no use any more"


async def test_an_invoice_is_proved_by_the_last_seal_of_its_month_and_what_came_after(
    connection: asyncpg.Connection, engine: AsyncEngine, called: list[UUID], consumer: UUID
) -> None:
    assert called
    month, closing_nanos = LONG_AGO.date().replace(day=1), FUNDS_NANOS - 10_000 + 7
    await connection.execute(_INVOICE, consumer, month, closing_nanos)
    assert await check(engine, replay=True) == []
    for change, value in (
        ("UPDATE invoices SET closing_nanos = closing_nanos + 1 WHERE number = $1", 1),
        ("UPDATE transfers SET amount_nanos = 8 WHERE amount_nanos = $1", 7),
        ("UPDATE seals SET posted_nanos = posted_nanos + 1 WHERE sealed_before = $1", OLD_SEAL),
    ):
        assert "replay_invoice_is_its_entries" in await _found(engine, change, value), change


_INVOICE = """
INSERT INTO invoices
    (id, account_id, number, month, opening_nanos, closing_nanos, content, issued_at)
SELECT uuidv7(), owner_id, 1, $2, 0, $3, '{}', now() FROM ledger_accounts WHERE id = $1
"""

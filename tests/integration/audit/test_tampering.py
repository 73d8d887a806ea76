"""What the database refuses to everybody, and what a superuser cannot do unnoticed."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.flows.access.verify_audit import seal_audit, verify_audit
from broker.flows.books.check import check
from broker.store import maintenance
from broker.store.access import audit
from broker.store.access.audit import Deed
from broker.store.access.audit_chain import Head
from broker.store.sealing import Sealer

NOW = datetime(2030, 5, 1, 12, tzinfo=UTC)

IMMUTABLE = (
    *("holds", "settlements", "settlement_lines", "transfers", "seals", "seal_periods", "events"),
    *("audit_log", "audit_chain", "audit_seals", "commission_plans", "credit_notes", "invoices"),
)


async def write(engine: AsyncEngine, *actions: str) -> None:
    for action in actions:
        async with engine.begin() as connection:
            await audit.record(connection, Deed("boss", action, "keys/1", {"b": 1, "a": "é"}), NOW)


async def tamper(superuser: asyncpg.Connection, *statements: str) -> None:
    """Do it as who may switch the triggers off."""
    async with superuser.transaction():
        await superuser.execute("SET LOCAL session_replication_role = replica")
        for statement in statements:
            await superuser.execute(statement)


async def flaws(engine: AsyncEngine, sealer: Sealer, noted: Head | None = None) -> str:
    return "\n".join((await verify_audit(engine, sealer, noted)).flaws)


async def test_a_log_that_nobody_touched_is_as_it_was_written(
    engine: AsyncEngine, sealer: Sealer
) -> None:
    assert (await verify_audit(engine, sealer)).head is None
    await write(engine, "one", "two")
    await seal_audit(engine, sealer, NOW)
    assert await seal_audit(engine, sealer, NOW) is None
    await write(engine, "three")
    verdict = await verify_audit(engine, sealer)
    assert (verdict.entries, verdict.sealed, verdict.flaws) == (3, 2, ())
    assert await check(engine, replay=True) == []


async def test_entries_of_many_transactions_at_once_make_one_chain(
    engine: AsyncEngine, sealer: Sealer
) -> None:
    async def two(number: int) -> None:
        async with engine.begin() as connection:
            for half in "ab":
                await audit.record(connection, Deed("boss", f"{number}{half}", "keys/1"), NOW)

    await asyncio.gather(*map(two, range(12)))
    verdict = await verify_audit(engine, sealer)
    assert (verdict.entries, verdict.flaws) == (24, ())


async def test_an_entry_that_is_rolled_back_leaves_no_link(
    engine: AsyncEngine, sealer: Sealer
) -> None:
    async with engine.connect() as connection:
        await audit.record(connection, Deed("boss", "never", "keys/1"), NOW)
        await connection.rollback()
    await write(engine, "once")
    assert (await verify_audit(engine, sealer)).entries == 1


async def test_a_rewritten_entry_is_noticed(
    engine: AsyncEngine, sealer: Sealer, superuser: asyncpg.Connection
) -> None:
    await write(engine, "one", "two", "three")
    await tamper(superuser, "UPDATE audit_log SET author = 'nobody' WHERE action = 'two'")
    assert "Entry 2" in await flaws(engine, sealer)
    assert [each.view for each in await check(engine, replay=True)] == ["replay_audit_chain"]


async def test_a_deleted_entry_is_noticed(
    engine: AsyncEngine, sealer: Sealer, superuser: asyncpg.Connection
) -> None:
    await write(engine, "one", "two", "three")
    await tamper(superuser, "DELETE FROM audit_log WHERE action = 'two'")
    assert "was deleted" in await flaws(engine, sealer)
    await tamper(superuser, "DELETE FROM audit_chain WHERE number = 2")
    assert "Links 2 to 2 are gone" in await flaws(engine, sealer)


async def test_an_entry_slipped_in_without_a_link_is_noticed(
    engine: AsyncEngine, sealer: Sealer, superuser: asyncpg.Connection
) -> None:
    await write(engine, "one")
    slipped = "INSERT INTO audit_log VALUES (uuidv7(), now(), 'x', 'y', 'z')"
    await tamper(superuser, slipped)
    assert "has no link" in await flaws(engine, sealer)
    assert [each.view for each in await check(engine)] == ["invariant_audit_is_chained"]
    await tamper(superuser, "DELETE FROM audit_log WHERE author = 'x'")


async def test_a_chain_that_is_forged_whole_breaks_its_seals(
    engine: AsyncEngine, sealer: Sealer, superuser: asyncpg.Connection
) -> None:
    await write(engine, "one", "two")
    await seal_audit(engine, sealer, NOW)
    await tamper(
        superuser,
        "UPDATE audit_log SET author = 'nobody' WHERE action = 'one'",
        "UPDATE audit_chain c SET hash = audit_hash('', l) FROM audit_log l"
        " WHERE l.id = c.entry_id AND c.number = 1",
        "UPDATE audit_chain c SET hash = audit_hash(b.hash, l) FROM audit_log l, audit_chain b"
        " WHERE l.id = c.entry_id AND c.number = 2 AND b.number = 1",
    )
    assert [each.view for each in await check(engine, replay=True)] == []
    assert "seal of link 2 does not fit" in await flaws(engine, sealer)
    assert "seal of link 2 is of a key" in await flaws(engine, Sealer("cd" * 32))


async def test_an_end_that_was_cut_off_is_noticed_by_a_link_noted_elsewhere(
    engine: AsyncEngine, sealer: Sealer, superuser: asyncpg.Connection
) -> None:
    await write(engine, "one", "two")
    noted = await seal_audit(engine, sealer, NOW)
    assert noted is not None
    assert await flaws(engine, sealer, noted) == ""
    await tamper(
        superuser,
        "DELETE FROM audit_seals",
        "DELETE FROM audit_chain WHERE number = 2",
        "DELETE FROM audit_log WHERE action = 'two'",
    )
    assert await flaws(engine, sealer) == ""
    assert "Link 2 was noted" in await flaws(engine, sealer, noted)
    await write(engine, "another")
    assert "not the one that was noted" in await flaws(engine, sealer, noted)


async def test_no_record_and_no_partition_of_one_is_truncated(
    engine: AsyncEngine, superuser: asyncpg.Connection
) -> None:
    assert await maintenance.ensure_partitions(engine, date(2040, 1, 1), 1) >= 5
    rows = await superuser.fetch(
        "SELECT tgrelid::regclass::text, tgparentid FROM pg_trigger WHERE tgname = 'immutable'"
    )
    assert {name for name, parent in rows if not parent} >= set(IMMUTABLE)
    assert "settlements_204001" in {name for name, _ in rows}
    for name, _ in rows:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="immutable record"):
            await superuser.execute(f"TRUNCATE {name} CASCADE")
    await superuser.execute("TRUNCATE price_changes_204001")


async def test_an_adjustment_without_a_reason_is_refused_by_the_books(
    engine: AsyncEngine,
) -> None:
    async with engine.connect() as connection:
        with pytest.raises(Exception, match="transfers_adjustment_explained"):
            await connection.execute(
                text(
                    "INSERT INTO transfers (id, debit_id, credit_id, amount_nanos, kind, author,"
                    " created_at) SELECT uuidv7(), a.id, b.id, 1, 'adjustment', 'boss', now()"
                    " FROM ledger_accounts a, ledger_accounts b WHERE a.id < b.id LIMIT 1"
                )
            )

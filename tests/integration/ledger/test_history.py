"""What is forgotten of long ago, what stays, and that nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs
from uuid_utils.compat import uuid7

from broker.core.story import FORGOTTEN, decode
from broker.flows.books.check import check
from broker.flows.books.seal import seal
from broker.flows.calls.forget_history import forget, plan
from broker.jobs.room import Room
from broker.jobs.upkeep import forget_history
from broker.settings import Settings
from broker.store import history, ledger, maintenance
from broker.store.calls.log import find_call
from broker.store.database import create_engine
from broker.store.history import Patience
from broker.store.money.plans import id_at
from tests.integration.commands import command
from tests.integration.ledger.entries import a_hold, a_record, backdate, trade

NOW = datetime.now(UTC)
THIS_MONTH = NOW.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
MONTH = (THIS_MONTH - timedelta(days=70)).replace(day=1)
"""One that has long ended."""
ENDED = (MONTH + timedelta(days=32)).replace(day=1)
STORY = b"a story that is told" * 10


@pytest.fixture
async def engine(database_url: str, connection: asyncpg.Connection) -> AsyncIterator[AsyncEngine]:
    """With a month that everybody has done with."""
    engine = create_engine(database_url, connections_max=3)
    await maintenance.ensure_partitions(engine, MONTH.date(), months=1)
    for job in ("lost_calls", "sla_credits"):
        await connection.execute("INSERT INTO progress VALUES ($1, $2)", job, NOW)
    await connection.execute("UPDATE receipt_horizon SET compared = $1", id_at(NOW))
    await seal(engine, NOW - timedelta(hours=1), NOW)
    yield engine
    await engine.dispose()


async def called(connection: asyncpg.Connection, at: datetime, story: bytes = STORY) -> UUID:
    """A call of then, which cost nothing; returns its id."""
    record = replace(a_record(a_hold(uuid7(), 1, at=at), 0, story), hold_nanos=0)
    await ledger.record_batch(connection, [record])
    return record.id


async def stories(connection: asyncpg.Connection) -> dict[UUID, bytes]:
    rows = await connection.fetch("SELECT id, story FROM calls")
    return {row["id"]: row["story"] for row in rows}


async def test_a_month_of_long_ago_loses_its_stories_and_no_call(
    engine: AsyncEngine, connection: asyncpg.Connection
) -> None:
    old = [await called(connection, MONTH + timedelta(days=day)) for day in (0, 9)]
    new = await called(connection, NOW)
    others = "SELECT * FROM calls ORDER BY id"
    before = [dict(row) for row in await connection.fetch(others)]
    indexes = "SELECT indexdef FROM pg_indexes WHERE tablename = $1"
    home = f"calls_{MONTH:%Y%m}"
    indexed = len(await connection.fetch(indexes, home))

    [told] = [each for each in (await plan(engine, ENDED)).pieces if each.table == "calls"]
    assert (told.month, told.going.rows) == (MONTH, 2)
    assert 2 * len(STORY) <= told.going.bytes < 3 * len(STORY)
    assert await forget(engine, ENDED) == 2, "its calls and its prices"

    assert await stories(connection) == {**dict.fromkeys(old, b""), new: STORY}
    after = [dict(row) for row in await connection.fetch(others)]
    assert [{**row, "story": None} for row in after] == [{**row, "story": None} for row in before]
    found = await find_call(engine, old[0])
    assert decode(found.story).end == FORGOTTEN
    assert len(await connection.fetch(indexes, home)) == indexed
    assert (await plan(engine, ENDED)).pieces == []
    assert await forget(engine, ENDED) == 0, "once"
    assert await maintenance.ensure_partitions(engine, MONTH.date(), months=1) == 0
    late = await called(connection, MONTH + timedelta(days=3))
    assert late in await stories(connection)
    assert await check(engine, replay=True) == []


async def test_what_is_disputed_or_still_compared_keeps_its_story(
    engine: AsyncEngine, connection: asyncpg.Connection
) -> None:
    ids = [await called(connection, MONTH + timedelta(days=1)) for _ in range(5)]
    disputed, settled, case, late, plain = ids
    await connection.execute("SET session_replication_role = replica")  # they refer to nothing
    for call_id, status in ((disputed, "contested"), (settled, "withdrawn")):
        await connection.execute(
            "INSERT INTO disputes (id, call_id, account_id, asked_nanos, reason, status, opened_at,"
            " answer_by, closed_at) VALUES (uuidv7(), $1, uuidv7(), 5, 'wrong', $2, now(), now(),"
            " CASE WHEN $2 = 'withdrawn' THEN now() END)",
            *(call_id, status),
        )
    await connection.execute(
        "INSERT INTO receipt_cases (id, kind, provider_id, deployment_id, call_id, attempt, detail,"
        " opened_at) VALUES (uuidv7(), 'not_billed', uuidv7(), uuidv7(), $1, 0, '{}', now())",
        case,
    )
    await connection.execute("INSERT INTO receipts_late VALUES ($1)", late)
    await forget(engine, ENDED)
    told = await stories(connection)
    assert {each for each in ids if told[each]} == {disputed, case, late}
    assert told[plain] == told[settled] == b""
    await connection.execute("DELETE FROM disputes; DELETE FROM receipt_cases")


@pytest.mark.parametrize(
    "unfinished",
    [
        "UPDATE progress SET done_before = $1 WHERE job = 'lost_calls'",
        "UPDATE progress SET done_before = $1 WHERE job = 'sla_credits'",
        "DELETE FROM progress WHERE job = 'sla_credits' AND $1::timestamptz IS NOT NULL",
        "UPDATE receipt_horizon SET compared = id_at($1)",
        "UPDATE seal_periods SET sealed_before = $1",
    ],
)
async def test_a_month_that_is_still_looked_at_stays(
    engine: AsyncEngine, connection: asyncpg.Connection, unfinished: str
) -> None:
    call = await called(connection, MONTH + timedelta(days=1))
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(unfinished, ENDED - timedelta(hours=1))
    assert [each.table for each in (await plan(engine, ENDED)).waiting] == ["calls"]
    await forget(engine, ENDED)
    assert (await stories(connection))[call] == STORY


async def test_of_prices_the_first_and_the_last_of_a_month_stay(
    engine: AsyncEngine, connection: asyncpg.Connection
) -> None:
    for number, days in ((0, (1, 2, 3, 4)), (1, (5,)), (2, (6, 7))):
        for day in days:
            await connection.execute(
                "INSERT INTO price_changes VALUES ($1, $2, $3, 1, 1, 0, 0)",
                *(number, day, MONTH + timedelta(days=day)),
            )
    for version, at in enumerate((MONTH, ENDED - timedelta(days=1), ENDED, NOW), 1):
        await connection.execute("INSERT INTO price_books VALUES ($1, $2, 'posted')", version, at)
    told = {each.table: each.going.rows for each in (await plan(engine, ENDED)).pieces}
    assert told == {"calls": 0, "price_changes": 2, "price_books": 2}
    await forget(engine, ENDED)
    left = await connection.fetch("SELECT * FROM price_changes ORDER BY at")
    assert [row["version"] for row in left] == [1, 4, 5, 6, 7]
    books = await connection.fetch("SELECT version FROM price_books ORDER BY version")
    assert [row["version"] for row in books] == [3, 4]
    await connection.execute("DELETE FROM price_books WHERE version = 4")
    await forget(engine, NOW)
    assert await connection.fetchval("SELECT version FROM price_books") == 3, "the newest stays"


async def test_nobody_waits_for_a_month_whose_table_is_in_use(
    engine: AsyncEngine, connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    call = await called(connection, MONTH + timedelta(days=1))
    async with engine.connect() as looking:
        [month] = [each for each in await history.months(looking, ENDED) if each.table == "calls"]
    async with other.transaction():
        await other.fetch("SELECT FROM calls")
        thinning = asyncio.create_task(history.thin(engine, month, Patience(pause_s=0.01)))
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
        async with asyncio.timeout(20):
            for _ in range(1_000):
                if await connection.fetchval(waits):
                    break
                await asyncio.sleep(0.01)
            # Behind the exchange, which gives way though the reader does not.
            await called(connection, NOW)
        assert not thinning.done()
        assert await history.thin(engine, month) is False, "somebody does it already"
    assert await thinning
    assert (await stories(connection))[call] == b""


async def test_a_month_that_somebody_writes_to_is_left_for_another_day_and_others_go_on(
    engine: AsyncEngine, connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    call = await called(connection, MONTH + timedelta(days=1))
    for version, at in enumerate((MONTH, NOW), 1):
        await connection.execute("INSERT INTO price_books VALUES ($1, $2, 'posted')", version, at)
    async with other.transaction():
        await other.execute(f"LOCK TABLE calls_{MONTH:%Y%m} IN ROW EXCLUSIVE MODE")
        assert await forget(engine, ENDED) == 1, "its prices"
    assert (await stories(connection))[call] == STORY
    assert await connection.fetchval("SELECT count(*) FROM price_books") == 1
    assert await forget(engine, ENDED) == 1, "its calls"


async def test_a_table_that_is_in_use_all_the_time_is_tried_once_and_others_go_on(
    engine: AsyncEngine, connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    before = (MONTH - timedelta(days=1)).replace(day=1)
    await maintenance.ensure_partitions(engine, before.date(), months=1)
    months = [before, MONTH]
    ids = [await called(connection, each + timedelta(days=1)) for each in months]
    async with other.transaction():
        await other.fetch("SELECT FROM calls")
        with capture_logs() as logs:
            assert await forget(engine, ENDED, Patience(tries=1, pause_s=0.0)) == 2, "its prices"
    assert [each["month"] for each in logs] == [f"calls_{before:%Y%m}"]
    assert await stories(connection) == dict.fromkeys(ids, STORY)
    assert await forget(engine, ENDED) == 2, "its calls"


async def test_calls_that_no_month_had_room_for_lose_their_stories_too(
    engine: AsyncEngine, connection: asyncpg.Connection
) -> None:
    stray = await called(connection, datetime(2001, 5, 9, tzinfo=UTC))
    new = await called(connection, NOW)
    await forget(engine, ENDED)
    assert await stories(connection) == {stray: b"", new: STORY}


async def test_money_of_a_forgotten_month_is_told_and_proved_as_before(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
) -> None:
    await trade(connection, consumer, provider, take)
    await connection.execute("SET session_replication_role = replica")
    await connection.execute("DELETE FROM seals; DELETE FROM seal_periods")
    await connection.execute("SET session_replication_role = origin")
    await backdate(connection, NOW - MONTH - timedelta(days=5))
    await seal(engine, ENDED + timedelta(days=2), NOW)
    tables = ("holds", "settlements", "settlement_lines", "transfers", "balances", "seals")
    before = [await connection.fetch(f"SELECT * FROM {each} ORDER BY 1") for each in tables]
    await forget(engine, ENDED)
    after = [await connection.fetch(f"SELECT * FROM {each} ORDER BY 1") for each in tables]
    assert after == before
    assert await check(engine, replay=True) == []


async def test_the_worker_forgets_what_its_setting_names_and_nothing_without_it(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    pool: asyncpg.Pool,
    database_url: str,
) -> None:
    call = await called(connection, MONTH + timedelta(days=1))
    environment = {
        "DATABASE_URL": database_url,
        "VALKEY_URL": "none is needed",
        "BROKER_SECRET_KEY": "ab" * 32,
    }
    days = (NOW.date() - date(ENDED.year, ENDED.month, ENDED.day)).days
    for kept, window, left in (
        ("", "30", STORY),
        (str(days), str(days), STORY),  # it can still be disputed, and that be answered
        (str(days), "30", b""),
    ):
        told = {"BROKER_HISTORY_KEPT_DAYS": kept, "BROKER_DISPUTE_WINDOW_DAYS": window}
        settings = Settings.from_env({**environment, **told})
        await forget_history(Room(settings, engine, pool))
        assert (await stories(connection))[call] == left


async def test_the_command_tells_what_would_go_and_changes_nothing(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    database_url: str,
) -> None:
    call = await called(connection, MONTH + timedelta(days=1))
    environment = {"DATABASE_URL": database_url, "BROKER_SECRET_KEY": "ab" * 32}
    unset = await command(environment, "history")
    assert unset.said.startswith("All is kept: BROKER_HISTORY_KEPT_DAYS is not set.")
    days = (NOW.date() - date(ENDED.year, ENDED.month, ENDED.day)).days
    for told in (
        await command(environment, "history", "--days", str(days)),
        await command({**environment, "BROKER_HISTORY_KEPT_DAYS": str(days)}, "history"),
    ):
        assert told.status == 0, told
        [line] = [each for each in told.said.splitlines() if "stories of calls" in each]
        assert line.split()[:3] == [f"{MONTH:%Y-%m}", "1", "rows"]
        assert "bytes would go" in told.said or "kB would go" in told.said
    assert (await stories(connection))[call] == STORY

"""Top-ups and adjustments, seals, checks, upkeep, and what the call log tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace as replaced
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from msgspec.structs import replace
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs
from uuid_utils.compat import uuid7

from broker.core.ledger import CallRecord, SettlementKind
from broker.errors import BalanceTooLow, BrokerError, NotAllowed, NotFound, RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.flows.access.open_account import open_account
from broker.flows.money.topup import adjust, top_up
from broker.store import ledger, maintenance
from broker.store.access.accounts import Role
from broker.store.calls.log import LOOKED_AT, CutCall, Filter, Match, Page, find_call, list_calls
from broker.store.database import create_engine
from broker.store.money.plans import id_at
from tests.integration.ledger.entries import PROCESS, a_capture, a_hold, fund, trade

OPERATOR = Caller(UUID(int=0), "office", Role.OPERATOR)
NOW = datetime.now(UTC)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url, connections_max=2)
    await open_account(engine, "acme", Role.CONSUMER, author="office", now=NOW)
    await open_account(engine, "gpus", Role.PROVIDER, author="office", now=NOW)
    await open_account(engine, "boss", Role.OPERATOR, author="office", now=NOW)
    yield engine
    await engine.dispose()


async def test_a_topup_moves_money_from_the_world_and_is_audited(
    engine: AsyncEngine, connection: asyncpg.Connection
) -> None:
    await top_up(engine, OPERATOR, "acme", 5_000, "first", NOW)
    balance = await top_up(engine, OPERATOR, "acme", 2_000, "second", NOW)
    assert (balance.posted_nanos, balance.held_nanos) == (7_000, 0)
    world = await connection.fetchval(
        "SELECT posted_nanos FROM balances JOIN ledger_accounts ON id = ledger_account_id"
        " WHERE kind = 'world'"
    )
    assert world == -7_000
    deeds = await connection.fetch("SELECT * FROM audit_log WHERE action = 'topup' ORDER BY id")
    assert [(deed["author"], deed["object"]) for deed in deeds] == [("office", "accounts/acme")] * 2


async def test_an_adjustment_goes_both_ways_but_never_below_what_is_available(
    engine: AsyncEngine,
) -> None:
    await adjust(engine, OPERATOR, "gpus", 3_000, "owed since May", NOW)
    balance = await adjust(engine, OPERATOR, "gpus", -1_000, "counted twice", NOW)
    assert balance.posted_nanos == 2_000
    with pytest.raises(BalanceTooLow):
        await adjust(engine, OPERATOR, "gpus", -2_001, "too much", NOW)


@pytest.mark.parametrize(
    ("name", "amount_nanos", "error", "code"),
    [
        ("acme", 0, RequestMalformed, "amount_out_of_bounds"),
        ("acme", -1, RequestMalformed, "amount_out_of_bounds"),
        ("acme", 10**18 + 1, RequestMalformed, "amount_out_of_bounds"),
        ("gpus", 1, RequestMalformed, "not_funds"),
        ("boss", 1, NotFound, "not_found"),
        ("nobody", 1, NotFound, "not_found"),
    ],
)
async def test_a_topup_out_of_bounds_is_refused_by_name(
    engine: AsyncEngine, name: str, amount_nanos: int, error: type[BrokerError], code: str
) -> None:
    with pytest.raises(error) as caught:
        await top_up(engine, OPERATOR, name, amount_nanos, "", NOW)
    assert caught.value.code == code


async def test_a_balance_has_a_ceiling(engine: AsyncEngine) -> None:
    for _ in range(4):
        await top_up(engine, OPERATOR, "acme", 10**18, "", NOW)
    with pytest.raises(RequestMalformed):
        await top_up(engine, OPERATOR, "acme", 1, "", NOW)


async def test_the_market_takes_in_no_more_than_the_world_can_owe(engine: AsyncEngine) -> None:
    for number in range(3):
        name = f"rich-{number}"
        await open_account(engine, name, Role.CONSUMER, author="office", now=NOW)
        for _ in range(3):
            await top_up(engine, OPERATOR, name, 10**18, "", NOW)
    with pytest.raises(RequestMalformed, match="market") as caught:
        await top_up(engine, OPERATOR, "acme", 1, "", NOW)
    assert caught.value.code == "amount_out_of_bounds"


async def test_only_an_operator_moves_money_and_an_adjustment_says_why(
    engine: AsyncEngine,
) -> None:
    with pytest.raises(NotAllowed):
        await top_up(engine, replaced(OPERATOR, role=Role.CONSUMER), "acme", 1, "", NOW)
    with pytest.raises(RequestMalformed, match="reason"):
        await adjust(engine, OPERATOR, "acme", 1, " ", NOW)


async def test_immutable_records_refuse_changes(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
) -> None:
    await trade(connection, consumer, provider, take)
    for table in ("holds", "settlements", "settlement_lines", "transfers"):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await connection.execute(f"DELETE FROM {table}")
    with pytest.raises(DBAPIError):
        async with engine.begin() as inside:
            await inside.exec_driver_sql("UPDATE settlements SET kind = 'released'")


async def test_partitions_are_made_ahead_and_once(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        parents = await connection.scalar(text("SELECT count(*) FROM pg_partitioned_table"))
    made = await maintenance.ensure_partitions(engine, date(2040, 11, 30), months=3)
    assert made == 3 * parents
    made = await maintenance.ensure_partitions(engine, date(2040, 12, 1), months=3)
    assert made == parents


async def test_a_partition_is_not_waited_for_while_somebody_reads_its_table(
    engine: AsyncEngine, connection: asyncpg.Connection
) -> None:
    day = date(2040, 11, 30)
    with capture_logs() as logs:
        async with connection.transaction():
            await connection.fetch("SELECT FROM calls")
            parents = await connection.fetchval("SELECT count(*) FROM pg_partitioned_table")
            async with asyncio.timeout(20):
                made = await maintenance.ensure_partitions(engine, day, months=1, waits_ms=50)
            # Only that one table is left as it was, and nothing else waits for it any more.
            assert made == parents - 1
            locked = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'"
            assert await connection.fetchval(locked) == 0
    assert [log["partitions"] for log in logs] == [["calls_204011"]]
    assert await maintenance.ensure_partitions(engine, day, months=1) == 1


async def test_a_row_that_no_month_had_room_for_stops_no_other_table(
    engine: AsyncEngine, connection: asyncpg.Connection
) -> None:
    await connection.execute("SET session_replication_role = replica")  # it refers to nothing
    moment = datetime(2040, 5, 9, tzinfo=UTC)
    await connection.execute(
        "INSERT INTO evidence (id, at, endpoint_id, source, grade, score, weight)"
        " VALUES ($1, $2, uuidv7(), 'judge', 'graded', 0.5, 1)",
        *(id_at(moment), moment),
    )
    await connection.execute("INSERT INTO price_changes VALUES (0, 1, $1, 1, 1, 0, 0)", moment)
    for table in ("evidence", "price_changes"):
        assert await _homes(connection, table) == [f"{table}_other"]
    with capture_logs() as logs:
        parents = await connection.fetchval("SELECT count(*) FROM pg_partitioned_table")
        made = await maintenance.ensure_partitions(engine, moment.date(), months=2)
    assert made == 2 * parents - 1, "all but the month of a record that nobody may move"
    assert [(log["event"], log["partitions"]) for log in logs] == [
        ("partitions_not_made", ["evidence_204005"])
    ]
    assert await connection.fetchval("SELECT to_regclass('settlements_204005') IS NOT NULL")
    assert await _homes(connection, "evidence") == ["evidence_other"]
    assert await _homes(connection, "price_changes") == ["price_changes_204005"]


async def _homes(connection: asyncpg.Connection, table: str) -> list[str]:
    rows = await connection.fetch(f"SELECT tableoid::regclass::text AS home FROM {table}")
    return [row["home"] for row in rows]


async def test_a_call_is_found_by_its_record_or_by_its_hold(
    engine: AsyncEngine,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
) -> None:
    await fund(connection, consumer, 1)
    served, open_, expired = (a_hold(consumer, 100_000, lasts_s) for lasts_s in (60, 60, -1))
    await ledger.hold_batch(connection, [served, open_, expired], PROCESS)
    capture = a_capture(served, (provider, 10))
    await ledger.settle_batch(connection, [capture], take)
    await ledger.expire_holds(connection, datetime.now(UTC), 10)

    assert await find_call(engine, served.call_id) == capture.record
    still = await find_call(engine, open_.call_id)
    assert isinstance(still, CutCall)
    owner = "SELECT owner_id FROM ledger_accounts WHERE id = $1"
    assert still.account_id == await connection.fetchval(owner, consumer)
    assert still.ended is None
    gone = await find_call(engine, expired.call_id)
    assert isinstance(gone, CutCall)
    assert (gone.ended, gone.charge_nanos) == (SettlementKind.EXPIRED, 0)
    assert await find_call(engine, uuid7()) is None


async def test_calls_are_listed_newest_first_by_account_and_by_endpoint(
    engine: AsyncEngine, connection: asyncpg.Connection, consumer: UUID
) -> None:
    records: list[CallRecord] = []
    for number in range(4):
        capture = a_capture(a_hold(consumer, 1_000))
        assert capture.record is not None
        records.append(replace(capture.record, hold_nanos=0, endpoint_number=number % 2))
    await ledger.record_batch(connection, records)
    newest = [replace(each, story=b"") for each in reversed(records)]

    async def ids(limit: int = 100, **wanted: Any) -> list[CallRecord]:
        return (await list_calls(engine, Filter(**wanted), limit)).records

    assert await ids() == newest
    assert await ids(1, before=records[2].id) == [newest[2]]
    assert await ids(account_id=records[1].account_id) == [newest[2]]
    assert await ids(endpoint_numbers=[1]) == [newest[0], newest[2]]


@pytest.mark.parametrize("match", [Match(), Match({"task_label": "mine"})])
async def test_calls_of_several_endpoints_come_page_by_page_in_the_order_of_all(
    engine: AsyncEngine, connection: asyncpg.Connection, consumer: UUID, match: Match
) -> None:
    last = a_capture(a_hold(consumer, 1_000)).record
    assert last is not None
    numbers = [1, 0, 1, 2, 1, 0, 2, 1, 1, None]
    newest = [
        replace(
            last,
            id=UUID(int=last.id.int - place),
            hold_nanos=0,
            story=b"",
            task_label="mine",
            endpoint_number=number,
        )
        for place, number in enumerate(numbers)
    ]
    await ledger.record_batch(connection, newest[::-1])

    async def pages(endpoints: list[int]) -> list[list[CallRecord]]:
        wanted, told = Filter(endpoint_numbers=endpoints, match=match), []
        while True:
            page = await list_calls(engine, wanted, 2)
            told.append(page.records)
            if page.after is None:
                return told
            wanted = replaced(wanted, before=page.after)

    for endpoints in ([], [2], [0, 2], [1, 2, 7], [0, 1, 2]):
        own = [each for each in newest if each.endpoint_number in endpoints]
        assert await pages(endpoints) == [own[at : at + 2] for at in range(0, len(own) + 1, 2)]


async def test_a_page_of_some_calls_looks_at_ten_thousand_and_the_next_goes_on_from_there(
    engine: AsyncEngine, connection: asyncpg.Connection, consumer: UUID
) -> None:
    last = a_capture(a_hold(consumer, 1_000)).record
    assert last is not None
    wanted = {0: "mine", LOOKED_AT - 1: "mine", LOOKED_AT: "mine", LOOKED_AT + 1: "mine"}
    newest = [
        replace(
            last,
            id=UUID(int=last.id.int - place),
            hold_nanos=0,
            story=b"",
            task_label=wanted.get(place, "other"),
        )
        for place in range(LOOKED_AT + 2)
    ]
    await ledger.record_batch(connection, newest)

    async def page(before: UUID | None, limit: int = 100) -> Page:
        return await list_calls(
            engine,
            Filter(last.account_id, before=before, match=Match({"task_label": "mine"})),
            limit,
        )

    first = await page(None)
    assert first == Page([newest[0], newest[LOOKED_AT - 1]], newest[LOOKED_AT - 1].id)
    assert await page(first.after) == Page(newest[LOOKED_AT:], None)
    assert await page(None, 1) == Page(newest[:1], newest[0].id)

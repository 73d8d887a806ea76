"""The statements of the books, one connection at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from msgspec.structs import replace
from uuid_utils.compat import uuid7

from broker.core.ledger import SettlementKind
from broker.store import ledger
from broker.store.ledger import SettleResult
from tests.integration.ledger.conftest import FUNDS_NANOS
from tests.integration.ledger.entries import (
    PROCESS,
    Standing,
    a_capture,
    a_hold,
    a_record,
    open_account,
    standing,
)


async def test_a_hold_reserves_and_a_capture_moves_exactly_the_charge(
    connection: asyncpg.Connection, consumer: UUID, provider: UUID, take: UUID
) -> None:
    hold = a_hold(consumer, 5_000_000)
    assert (await ledger.hold_batch(connection, [hold], PROCESS))[0].accepted
    assert await standing(connection, consumer) == Standing(FUNDS_NANOS, 5_000_000)

    [result] = await ledger.settle_batch(connection, [a_capture(hold, (provider, 3_001))], take)

    assert result.settled
    assert await standing(connection, consumer) == Standing(FUNDS_NANOS - 3_001_000, 0)
    assert await standing(connection, take) == Standing(300_100, 0)
    assert await standing(connection, provider) == Standing(2_700_900, 0)


async def test_holds_are_accepted_in_order_and_the_rest_told_what_is_left(
    connection: asyncpg.Connection, consumer: UUID
) -> None:
    amounts = [6_000_000, 3_000_000, 2_000_000, 1_000_000]
    holds = [a_hold(consumer, amount) for amount in amounts]
    results = await ledger.hold_batch(connection, holds, PROCESS)
    assert [result.accepted for result in results] == [True, True, False, False]
    assert [result.available_nanos for result in results[2:]] == [1_000_000, 1_000_000]
    assert await standing(connection, consumer) == Standing(FUNDS_NANOS, 9_000_000)


async def test_a_hold_may_take_the_last_nano_and_no_more(
    connection: asyncpg.Connection, consumer: UUID
) -> None:
    [first] = await ledger.hold_batch(connection, [a_hold(consumer, FUNDS_NANOS)], PROCESS)
    [second] = await ledger.hold_batch(connection, [a_hold(consumer, 1)], PROCESS)
    assert first.accepted
    assert not second.accepted


async def test_a_missing_account_refuses_its_own_hold_only(
    connection: asyncpg.Connection, consumer: UUID
) -> None:
    holds = [a_hold(consumer, 1), a_hold(uuid7(), 1), a_hold(consumer, 1)]
    results = await ledger.hold_batch(connection, holds, PROCESS)
    assert [result.accepted for result in results] == [True, False, True]
    assert results[1].available_nanos is None


async def test_a_repeated_call_fails_the_statement_and_writes_nothing(
    connection: asyncpg.Connection, consumer: UUID
) -> None:
    hold = a_hold(consumer, 1_000)
    with pytest.raises(asyncpg.UniqueViolationError):
        await ledger.hold_batch(connection, [hold, hold], PROCESS)
    assert await standing(connection, consumer) == Standing(FUNDS_NANOS, 0)


async def test_one_call_pays_every_attempt_that_delivered(
    connection: asyncpg.Connection, consumer: UUID, provider: UUID, take: UUID
) -> None:
    second = await open_account(connection, "provider")
    hold = a_hold(consumer, 5_000_000)
    await ledger.hold_batch(connection, [hold], PROCESS)
    capture = a_capture(hold, (provider, 1_000), (second, 2_000), (provider, 500))
    assert (await ledger.settle_batch(connection, [capture], take))[0].settled
    assert (await standing(connection, provider)).posted_nanos == 1_350_000
    assert (await standing(connection, second)).posted_nanos == 1_800_000
    assert (await standing(connection, consumer)).posted_nanos == FUNDS_NANOS - 3_500_000


async def test_each_of_a_batch_gets_its_own_lines_and_its_own_record(
    connection: asyncpg.Connection, consumer: UUID, provider: UUID, take: UUID
) -> None:
    twice, silent, released, last = holds = [a_hold(consumer, 1_000_000) for _ in range(4)]
    await ledger.hold_batch(connection, holds, PROCESS)
    batch = [
        a_capture(twice, (provider, 1), (provider, 2)),
        a_capture(a_hold(consumer, 1_000_000), (provider, 50)),
        a_capture(silent, (provider, 4), (provider, 8), recorded=False),
        a_capture(released),
        a_capture(last, (provider, 16)),
    ]
    results = await ledger.settle_batch(connection, batch, take)
    assert [each.settled for each in results] == [True, False, True, True, True]

    lines = await connection.fetch(
        "SELECT call_id, attempt, charge_nanos FROM settlement_lines"
        " WHERE call_id = ANY($1::uuid[]) ORDER BY 3",
        [each.call_id for each in batch],
    )
    assert [tuple(each) for each in lines] == [
        (twice.call_id, 1, 1_000),
        (twice.call_id, 2, 2_000),
        (silent.call_id, 1, 4_000),
        (silent.call_id, 2, 8_000),
        (last.call_id, 1, 16_000),
    ]
    records = await connection.fetch(
        "SELECT id, charge_nanos FROM calls WHERE id = ANY($1::uuid[]) ORDER BY 2",
        [each.call_id for each in batch],
    )
    assert [tuple(each) for each in records] == [
        (released.call_id, 0),
        (twice.call_id, 3_000),
        (last.call_id, 16_000),
    ]
    assert await standing(connection, consumer) == Standing(FUNDS_NANOS - 31_000, 0)


async def test_a_release_gives_everything_back(
    connection: asyncpg.Connection, consumer: UUID, take: UUID
) -> None:
    hold = a_hold(consumer, 5_000_000)
    await ledger.hold_batch(connection, [hold], PROCESS)
    release = a_capture(hold)
    assert release.kind is SettlementKind.RELEASED
    assert (await ledger.settle_batch(connection, [release], take))[0].settled
    assert await standing(connection, consumer) == Standing(FUNDS_NANOS, 0)


async def test_a_call_is_settled_once(
    connection: asyncpg.Connection, consumer: UUID, provider: UUID, take: UUID
) -> None:
    hold = a_hold(consumer, 5_000_000)
    await ledger.hold_batch(connection, [hold], PROCESS)
    capture = a_capture(hold, (provider, 1_000))
    [first] = await ledger.settle_batch(connection, [capture], take)
    [second] = await ledger.settle_batch(connection, [capture], take)
    [third] = await ledger.settle_batch(connection, [a_capture(a_hold(consumer, 1))], take)
    assert (first.settled, second.settled, third.settled) == (True, False, False)
    assert second.fault is third.fault is None
    assert await ledger.settled_as(connection, [hold.call_id, uuid7()]) == {
        hold.call_id: (SettlementKind.CAPTURED, 1_000_000)
    }
    assert (await standing(connection, provider)).posted_nanos == 900_000


@pytest.mark.parametrize("missing", ["payee", "take"])
async def test_a_missing_account_refuses_its_own_settlement_only(
    connection: asyncpg.Connection, consumer: UUID, provider: UUID, take: UUID, missing: str
) -> None:
    good, bad, released = (a_hold(consumer, 1_000_000) for _ in range(3))
    await ledger.hold_batch(connection, [good, bad, released], PROCESS)
    settlements = [
        a_capture(good, (provider, 10)),
        a_capture(bad, (provider, 10), (uuid7() if missing == "payee" else provider, 10)),
        a_capture(released),
    ]
    results = await ledger.settle_batch(
        connection, settlements, take if missing == "payee" else uuid7()
    )
    assert [result.settled for result in results] == [missing == "payee", False, True]
    assert results[1].fault == "a ledger account is missing"
    assert (await standing(connection, consumer)).held_nanos >= 1_000_000, "the hold stays open"


async def test_lines_that_do_not_sum_to_the_charge_are_refused(
    connection: asyncpg.Connection, consumer: UUID, provider: UUID, take: UUID
) -> None:
    hold = a_hold(consumer, 1_000_000)
    await ledger.hold_batch(connection, [hold], PROCESS)
    wrong = replace(a_capture(hold, (provider, 10)), charge_nanos=9_999)
    [result] = await ledger.settle_batch(connection, [wrong], take)
    assert result.fault == "the lines do not sum to the charge"


async def test_a_charge_above_its_hold_breaks_a_constraint(
    connection: asyncpg.Connection, consumer: UUID, provider: UUID, take: UUID
) -> None:
    hold = a_hold(consumer, 1_000_000)
    await ledger.hold_batch(connection, [hold], PROCESS)
    dear = a_capture(replace(hold, amount_nanos=5_000_000), (provider, 1_001))
    with pytest.raises(asyncpg.CheckViolationError):
        await ledger.settle_batch(connection, [dear], take)
    assert await standing(connection, consumer) == Standing(FUNDS_NANOS, 1_000_000)


async def test_the_call_record_is_stored_as_it_was_given(
    connection: asyncpg.Connection, consumer: UUID, provider: UUID, take: UUID
) -> None:
    hold = a_hold(consumer, 1_000_000)
    await ledger.hold_batch(connection, [hold], PROCESS)
    capture = a_capture(hold, (provider, 10))
    assert capture.record is not None
    capture = replace(capture, record=replace(capture.record, story=bytes(range(256))))
    await ledger.settle_batch(connection, [capture], take)
    row = await connection.fetchrow("SELECT * FROM calls WHERE id = $1", hold.call_id)
    assert row["story"] == bytes(range(256))
    assert row["session_id"] == 'a "quoted" sëssion'
    assert row["labels"] == '{"team": "a"}'
    assert (row["created_at"], row["ttft_ms"]) == (hold.created_at, 12.5)


async def test_a_record_without_a_hold_is_written_once(connection: asyncpg.Connection) -> None:
    record = replace(a_record(a_hold(uuid7(), 1), 0), hold_nanos=0, status=402)
    await ledger.record_batch(connection, [record])
    await ledger.record_batch(connection, [record])
    assert await connection.fetchval("SELECT count(*) FROM calls WHERE status = 402") == 1


async def test_a_settlement_kept_back_for_hours_is_dated_after_any_seal(
    connection: asyncpg.Connection, consumer: UUID, take: UUID
) -> None:
    now = datetime.now(UTC)
    hold = replace(a_hold(consumer, 1_000), created_at=now - timedelta(hours=5))
    await ledger.hold_batch(connection, [hold], PROCESS)
    late = replace(a_capture(hold, recorded=False), settled_at=now - timedelta(hours=4))
    await ledger.settle_batch(connection, [late], take)
    dated = await connection.fetchval("SELECT settled_at FROM settlements")
    assert now - timedelta(hours=1) < dated <= datetime.now(UTC)


async def test_no_settlement_is_older_than_its_hold_whatever_clocks_say(
    connection: asyncpg.Connection, consumer: UUID, provider: UUID, take: UUID
) -> None:
    hold = a_hold(consumer, 2_000)
    await ledger.hold_batch(connection, [hold], PROCESS)
    early = replace(
        a_capture(hold, (provider, 2)), settled_at=hold.created_at - timedelta(minutes=9)
    )
    assert await ledger.settle_batch(connection, [early], take) == [SettleResult(settled=True)]
    for dated in ("settlements", "settlement_lines"):
        [at] = await connection.fetch(f"SELECT settled_at FROM {dated}")
        assert at["settled_at"] == hold.created_at
    assert not await connection.fetch("SELECT * FROM invariant_served_call_is_settled")


async def test_expired_holds_are_given_back_and_live_ones_kept(
    connection: asyncpg.Connection, consumer: UUID
) -> None:
    holds = [a_hold(consumer, 1_000, lasts_s) for lasts_s in (-1, -2, -3, 60)]
    await ledger.hold_batch(connection, holds, PROCESS)
    now = datetime.now(UTC)
    assert await ledger.expire_holds(connection, now, limit=2) == 2
    assert await ledger.expire_holds(connection, now, limit=2) == 1
    assert await ledger.expire_holds(connection, now, limit=2) == 0
    assert await standing(connection, consumer) == Standing(FUNDS_NANOS, 1_000)


async def test_processes_share_out_the_take_accounts(connection: asyncpg.Connection) -> None:
    shards = [await ledger.take_account(connection, process) for process in range(32)]
    assert len(set(shards)) == 16

"""The batcher as its callers meet it."""

from __future__ import annotations

import asyncio
from functools import partial
from uuid import UUID

import asyncpg
import pytest
from msgspec.structs import replace
from uuid_utils.compat import uuid7

from broker.core.ledger import CallRecord
from broker.errors import BalanceTooLow, BrokerError, Conflict, TooManyCalls, Unavailable
from broker.flows.books.batch import LedgerBatcher
from broker.flows.books.lane_ahead import HoldTerms
from broker.store import ledger
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
from tests.integration.ledger.waiting import until_blocked
from tests.waiting import until


async def test_many_calls_at_once_are_held_and_settled_exactly(
    batcher: LedgerBatcher, connection: asyncpg.Connection
) -> None:
    consumers = [await open_account(connection, "consumer", FUNDS_NANOS) for _ in range(5)]
    providers = [await open_account(connection, "provider") for _ in range(3)]

    async def call(number: int) -> None:
        hold = a_hold(consumers[number % 5], 50_000)
        await batcher.hold(hold)
        assert await batcher.settle(a_capture(hold, (providers[number % 3], 10)))

    await asyncio.gather(*(call(number) for number in range(600)))

    for each in consumers:
        assert await standing(connection, each) == Standing(FUNDS_NANOS - 120 * 10_000, 0)
    for each in providers:
        assert await standing(connection, each) == Standing(200 * 9_000, 0)
    commits = await connection.fetchval("SELECT count(DISTINCT xmin::text) FROM settlements")
    assert commits < 300, "captures share their commits"
    assert await connection.fetchval("SELECT count(*) FROM calls") == 600


async def test_a_lane_that_dies_of_a_fault_of_ours_is_told_and_no_call_is_let_in(
    batcher: LedgerBatcher,
    consumer: UUID,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    hold = a_hold(consumer, 1_000)
    await batcher.hold(hold)
    assert not batcher.is_stuck
    lane = batcher.lanes()["settlements"]
    monkeypatch.setattr(lane, "_next_batch", lambda: 1 / 0)
    batcher.release(hold)

    async def died() -> bool:
        return batcher.is_stuck

    await until(died)
    assert "event=lane_died lane=SettlementLane" in capfd.readouterr().err
    with pytest.raises(Unavailable):
        await batcher.hold(a_hold(consumer, 1_000))


async def test_a_hold_behind_one_too_big_is_asked_again_and_fits(
    batcher: LedgerBatcher, consumer: UUID
) -> None:
    amounts = [4_000_000, FUNDS_NANOS, 5_000_000, 2_000_000, 1_000_000]
    results = await asyncio.gather(
        *(batcher.hold(a_hold(consumer, amount)) for amount in amounts), return_exceptions=True
    )
    assert [result is None for result in results] == [True, False, True, False, True]
    assert isinstance(results[1], BalanceTooLow)
    assert results[1].facts == {"needed_usd": "0.01", "available_usd": "0.006"}
    assert isinstance(results[3], BalanceTooLow)
    assert results[3].status == 402


async def test_of_two_holds_for_one_call_the_second_fails_alone(
    batcher: LedgerBatcher, consumer: UUID
) -> None:
    hold = a_hold(consumer, 1_000)
    others = [a_hold(consumer, 1_000) for _ in range(5)]
    results = await asyncio.gather(
        *(batcher.hold(each) for each in [*others[:3], hold, hold, *others[3:]]),
        return_exceptions=True,
    )
    assert [result is None for result in results] == [True] * 4 + [False] + [True] * 2
    assert isinstance(results[4], Conflict)


@pytest.mark.parametrize("amount_nanos", [0, -5, 2**63, 2**70])
async def test_an_absurd_amount_fails_alone(
    batcher: LedgerBatcher, connection: asyncpg.Connection, consumer: UUID, amount_nanos: int
) -> None:
    absurd = replace(a_hold(consumer, 1), amount_nanos=amount_nanos)
    results = await asyncio.gather(
        batcher.hold(a_hold(consumer, 1_000)),
        batcher.hold(absurd),
        batcher.hold(a_hold(consumer, 2_000)),
        return_exceptions=True,
    )
    assert [result is None for result in results] == [True, False, True]
    assert isinstance(results[1], BrokerError)
    assert (await standing(connection, consumer)).held_nanos == 3_000


async def test_a_call_dearer_than_any_balance_is_a_402_and_reaches_no_statement(
    batcher: LedgerBatcher, consumer: UUID
) -> None:
    with pytest.raises(BalanceTooLow, match="more than any balance"):
        await batcher.hold(replace(a_hold(consumer, 1), amount_nanos=10**25))


async def test_a_missing_account_is_told_loudly(batcher: LedgerBatcher) -> None:
    with pytest.raises(BrokerError, match="no funds account") as caught:
        await batcher.hold(a_hold(uuid7(), 1_000))
    assert caught.value.code == "ledger_account_missing"


async def test_a_call_that_is_settled_twice_is_counted_once(
    batcher: LedgerBatcher, consumer: UUID, provider: UUID
) -> None:
    hold = a_hold(consumer, 100_000)
    await batcher.hold(hold)
    capture = a_capture(hold, (provider, 10))
    assert await batcher.settle(capture)
    assert not await batcher.settle(capture)
    sums = batcher.turnover.sums["chat"]
    assert (sums.charged_nanos, sums.take_nanos, sums.earnings_nanos) == (10_000, 1_000, 9_000)
    assert dict(batcher.turnover.lasted["chat", "failed"].buckets())["+Inf"] == 1


async def test_a_settlement_with_an_unknown_payee_fails_alone_and_keeps_its_hold(
    batcher: LedgerBatcher, connection: asyncpg.Connection, consumer: UUID, provider: UUID
) -> None:
    good, bad = a_hold(consumer, 100_000), a_hold(consumer, 200_000)
    await asyncio.gather(batcher.hold(good), batcher.hold(bad))
    results = await asyncio.gather(
        batcher.settle(a_capture(bad, (uuid7(), 10))),
        batcher.settle(a_capture(good, (provider, 10))),
        return_exceptions=True,
    )
    assert isinstance(results[0], BrokerError)
    assert results[1] is True
    assert await standing(connection, consumer) == Standing(FUNDS_NANOS - 10_000, 200_000)


async def test_a_settlement_whose_take_would_go_nowhere_fails_and_can_be_made_again(
    connection: asyncpg.Connection, consumer: UUID, provider: UUID, take: UUID
) -> None:
    hold = a_hold(consumer, 100_000)
    await ledger.hold_batch(connection, [hold], PROCESS)
    capture = a_capture(hold, (provider, 10))
    [refused] = await ledger.settle_batch(connection, [capture], uuid7())
    assert refused == ledger.SettleResult(settled=False, fault="a ledger account is missing")
    [settled] = await ledger.settle_batch(connection, [capture], take)
    assert settled.settled


async def test_a_hold_is_refused_with_what_those_before_it_have_left(
    connection: asyncpg.Connection, consumer: UUID
) -> None:
    holds = [a_hold(consumer, 6_000_000), a_hold(consumer, FUNDS_NANOS)]
    [_, refused] = await ledger.hold_batch(connection, holds, PROCESS)
    assert (refused.accepted, refused.available_nanos) == (False, FUNDS_NANOS - 6_000_000)


async def test_a_charge_above_its_hold_fails_alone(
    batcher: LedgerBatcher, connection: asyncpg.Connection, consumer: UUID, provider: UUID
) -> None:
    holds = [a_hold(consumer, 100_000) for _ in range(4)]
    await asyncio.gather(*(batcher.hold(hold) for hold in holds))
    holds[2] = replace(holds[2], amount_nanos=10**9)
    results = await asyncio.gather(
        *(
            batcher.settle(a_capture(hold, (provider, 10 + 200 * (hold is holds[2]))))
            for hold in holds
        ),
        return_exceptions=True,
    )
    assert [result is True for result in results] == [True, True, False, True]
    assert await standing(connection, consumer) == Standing(FUNDS_NANOS - 30_000, 100_000)


async def test_money_moves_even_when_the_call_record_cannot_be_written(
    batcher: LedgerBatcher, connection: asyncpg.Connection, consumer: UUID, provider: UUID
) -> None:
    hold = a_hold(consumer, 100_000)
    await batcher.hold(hold)
    capture = a_capture(hold, (provider, 10))
    assert capture.record is not None
    broken = replace(capture, record=replace(capture.record, session_id="nul \x00"))
    assert await batcher.settle(broken)
    assert (await standing(connection, provider)).posted_nanos == 9_000
    assert await connection.fetchval("SELECT count(*) FROM calls") == 0


async def test_records_are_made_with_their_batch_and_money_moves_even_where_one_cannot_be(
    batcher: LedgerBatcher, connection: asyncpg.Connection, consumer: UUID, provider: UUID
) -> None:
    holds = [a_hold(consumer, 100_000) for _ in range(3)]
    await asyncio.gather(*(batcher.hold(hold) for hold in holds))
    captures = [a_capture(hold, (provider, 10)) for hold in holds]

    def draft(number: int) -> CallRecord:
        record = captures[number].record
        assert record is not None
        assert number != 1, "there is no such record"
        return record

    settling = [
        batcher.settle(replace(each, record=None), partial(draft, number))
        for number, each in enumerate(captures)
    ]
    assert await asyncio.gather(*settling) == [True, True, True]
    assert (await standing(connection, provider)).posted_nanos == 3 * 9_000
    written = await connection.fetch("SELECT id FROM calls")
    assert {row["id"] for row in written} == {holds[0].call_id, holds[2].call_id}


async def test_the_second_settlement_of_a_call_is_told_that_the_hold_was_gone(
    batcher: LedgerBatcher, connection: asyncpg.Connection, consumer: UUID, provider: UUID
) -> None:
    hold = a_hold(consumer, 100_000)
    await batcher.hold(hold)
    captures = [a_capture(hold, (provider, tokens)) for tokens in (10, 20)]
    assert await asyncio.gather(*map(batcher.settle, captures)) == [True, False]
    assert (await standing(connection, provider)).posted_nanos == 9_000


async def test_a_caller_who_leaves_while_the_hold_is_made_leaves_no_hold(
    batcher: LedgerBatcher,
    connection: asyncpg.Connection,
    other: asyncpg.Connection,
    consumer: UUID,
) -> None:
    async with other.transaction():
        await other.execute("SELECT FROM balances FOR UPDATE")
        waiting = asyncio.create_task(batcher.hold(a_hold(consumer, 1_000)))
        await until_blocked(connection)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    async def released() -> bool:
        kinds = await connection.fetch("SELECT kind FROM settlements")
        return [row["kind"] for row in kinds] == ["released"]

    await until(released)
    assert await standing(connection, consumer) == Standing(FUNDS_NANOS, 0)


async def test_a_caller_cancelled_at_any_moment_leaves_a_hold_only_when_told_so(
    batcher: LedgerBatcher, connection: asyncpg.Connection, consumer: UUID
) -> None:
    told = 0
    for turns in range(60):
        waiting = asyncio.create_task(batcher.hold(a_hold(consumer, 1_000)))
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        [outcome] = await asyncio.gather(waiting, return_exceptions=True)
        told += outcome is None
    for _ in range(20):
        # Cancelled in the very turn in which the answer arrives.
        waiting = asyncio.create_task(batcher.hold(a_hold(consumer, 1_000)))
        await asyncio.sleep(0)
        asked = batcher._holds.queue[-1] if batcher._holds.queue else None
        if asked is not None:
            asked.future.add_done_callback(lambda _, task=waiting: task.cancel())
        [outcome] = await asyncio.gather(waiting, return_exceptions=True)
        told += outcome is None

    async def nothing_more_is_held() -> bool:
        return (await standing(connection, consumer)).held_nanos == told * 1_000

    await until(nothing_more_is_held)


async def test_a_settlement_goes_on_when_its_caller_leaves(
    batcher: LedgerBatcher,
    connection: asyncpg.Connection,
    other: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
) -> None:
    hold = a_hold(consumer, 100_000)
    await batcher.hold(hold)
    async with other.transaction():
        await other.execute("SELECT FROM balances FOR UPDATE")
        waiting = batcher.settle(a_capture(hold, (provider, 10)))
        await until_blocked(connection)
        waiting.cancel()

    async def captured() -> bool:
        return (await standing(connection, provider)).posted_nanos == 9_000

    await until(captured)


async def test_too_many_waiting_calls_are_refused_at_once(
    pool: asyncpg.Pool, connection: asyncpg.Connection, consumer: UUID, take: UUID
) -> None:
    batcher = LedgerBatcher(pool, take, HoldTerms(PROCESS, rows_max=2, queue_max=3))
    batcher.start()
    results = await asyncio.gather(
        *(batcher.hold(a_hold(consumer, 1_000)) for _ in range(8)), return_exceptions=True
    )
    refused = [result for result in results if result is not None]
    assert len(refused) == 5
    assert all(isinstance(result, TooManyCalls) for result in refused)
    await batcher.drain()
    assert (await standing(connection, consumer)).held_nanos == 3_000


async def test_records_of_refused_calls_arrive(
    batcher: LedgerBatcher, connection: asyncpg.Connection
) -> None:
    record = replace(a_record(a_hold(uuid7(), 1), 0), hold_nanos=0, status=402)
    bad = replace(record, id=uuid7(), code="nul \x00")
    for each in (record, bad, replace(record, id=uuid7())):
        batcher.record(each)
    await batcher.drain()
    assert await connection.fetchval("SELECT count(*) FROM calls") == 2


async def test_after_draining_the_ledger_is_closed(
    batcher: LedgerBatcher, connection: asyncpg.Connection, consumer: UUID, provider: UUID
) -> None:
    hold = a_hold(consumer, 100_000)
    await batcher.hold(hold)
    settling = batcher.settle(a_capture(hold, (provider, 10)))
    await asyncio.sleep(0)
    await batcher.drain()
    assert await settling
    with pytest.raises(Unavailable):
        await batcher.hold(a_hold(consumer, 1_000))
    with pytest.raises(Unavailable):
        await batcher.settle(a_capture(hold, (provider, 10)))

"""Whose key it is, whatever became of the call that had it first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import msgspec
import pytest

from broker.core.ledger import Hold, settlement
from broker.store import leases, ledger
from broker.store.access import claims
from broker.store.access.claims import Claim, Stage
from broker.store.access.idempotency import Place
from tests.integration.ledger.entries import (
    a_capture,
    a_hold,
    a_record,
    ledger_connection,
    open_account,
)

MEANING = b"m" * 32
NOW = datetime.now(UTC)


class Market:
    """One consumer, one provider, and what calls under one key do."""

    def __init__(self, database: asyncpg.Connection) -> None:
        self.database = database
        self.funds: UUID
        self.earnings: UUID
        self.take: UUID
        self.place: Place
        self.process_id = 0

    async def open(self) -> None:
        self.funds = await open_account(self.database, "consumer", 10_000_000)
        self.earnings = await open_account(self.database, "provider")
        owner = await self.database.fetchval(
            "SELECT owner_id FROM ledger_accounts WHERE id = $1", self.funds
        )
        self.place = Place(owner, "order-1")
        self.process_id = await leases.register(self.database)
        self.take = await ledger.take_account(self.database, self.process_id)

    def wanted(self, hold: Hold, lasts_s: float = 400.0) -> Claim:
        """The claim of a call that may open `hold`."""
        return Claim(
            place=self.place,
            request_sha256=MEANING,
            call_id=hold.call_id,
            process_id=self.process_id,
            created_at=hold.created_at,
            free_at=hold.created_at + timedelta(seconds=lasts_s),
            expires_at=hold.created_at + timedelta(seconds=86_400),
        )

    async def claimed(self, lasts_s: float = 400.0) -> Hold:
        """A call that has claimed the key and done nothing since."""
        hold = a_hold(self.funds, 5_000)
        assert await claims.claim(self.database, self.wanted(hold, lasts_s))
        return hold

    async def held(self) -> Hold:
        """A call that has claimed the key and opened its hold."""
        hold = await self.claimed()
        await ledger.hold_batch(self.database, [hold], self.process_id)
        return hold

    async def settle(self, hold: Hold, *, tokens: int, status: int, code: str) -> None:
        """Settle a hold with a charge of 1,000 nano-dollars a token."""
        shares = [(self.earnings, tokens)] if tokens else []
        closing = a_capture(hold, *shares)
        record = msgspec.structs.replace(
            a_record(hold, closing.charge_nanos), status=status, code=code
        )
        closing = msgspec.structs.replace(closing, record=record)
        [result] = await ledger.settle_batch(self.database, [closing], self.take)
        assert result.settled

    async def release(self, hold: Hold) -> None:
        """Close a hold as a sweep does, without a record."""
        closing = settlement(hold, (), datetime.now(UTC), None)
        await ledger.settle_batch(self.database, [closing], self.take)

    async def stage(self, at: datetime = NOW) -> Stage | None:
        former = await claims.look(self.database, self.place, at)
        return former.stage if former else None

    async def take_over(self, at: datetime = NOW) -> bool:
        hold = a_hold(self.funds, 5_000)
        return await claims.take_over(self.database, self.wanted(hold), at)


@pytest.fixture
async def market(database_url: str) -> AsyncIterator[Market]:
    connection = await ledger_connection(database_url)
    market = Market(connection)
    await market.open()
    yield market
    await ledger.release_holds_of(connection, [market.process_id], 10)
    await connection.close()


async def test_a_key_is_claimed_once(market: Market) -> None:
    hold = await market.claimed()
    assert not await claims.claim(market.database, market.wanted(a_hold(market.funds, 5_000)))
    former = await claims.look(market.database, market.place, NOW)
    assert former is not None
    assert (former.stage, former.call_id) == (Stage.RUNNING, hold.call_id)
    assert not await market.take_over()
    assert await claims.look(market.database, Place(market.place.account_id, "other"), NOW) is None


async def test_of_many_claims_at_once_one_is_granted(market: Market, database_url: str) -> None:
    pool = await asyncpg.create_pool(database_url, min_size=0, max_size=8)

    async def claim() -> bool:
        async with pool.acquire() as connection:
            return await claims.claim(connection, market.wanted(a_hold(market.funds, 5_000)))

    assert sorted(await asyncio.gather(*(claim() for _ in range(24)))) == [False] * 23 + [True]
    await pool.close()


async def test_a_charged_call_keeps_its_key_however_it_ended(market: Market) -> None:
    hold = await market.held()
    assert await market.stage() is Stage.RUNNING
    await market.settle(hold, tokens=3, status=499, code="caller_left")
    former = await claims.look(market.database, market.place, NOW)
    assert former is not None
    assert (former.stage, former.charge_nanos) == (Stage.SERVED, 3_000)
    assert former.code == "caller_left"
    assert not await market.take_over()
    await claims.free(market.database, market.place, hold.call_id)
    assert await market.stage() is Stage.SERVED


async def test_a_call_that_was_served_for_nothing_keeps_its_key(market: Market) -> None:
    hold = await market.held()
    await market.settle(hold, tokens=0, status=200, code="served")
    assert await market.stage() is Stage.SERVED


async def test_a_call_that_failed_without_a_charge_leaves_its_key(market: Market) -> None:
    hold = await market.held()
    await market.settle(hold, tokens=0, status=502, code="all_providers_failed")
    assert await market.stage() is Stage.FREE
    assert await market.take_over()
    assert await market.stage() is Stage.RUNNING
    assert not await claims.stands(market.database, market.place, hold.call_id)


async def test_a_call_that_outlived_its_hold_leaves_its_key(market: Market) -> None:
    hold = await market.held()
    # It lasts by the database's clock, from when it was written.
    long_after = hold.expires_at + timedelta(hours=1)
    assert await ledger.expire_holds(market.database, long_after, 10) == 1
    assert await market.stage() is Stage.FREE


async def test_a_call_that_was_refused_before_its_hold_leaves_its_key(market: Market) -> None:
    hold = await market.claimed()
    record = msgspec.structs.replace(a_record(hold, 0), hold_nanos=0, status=402, code="no_money")
    await ledger.record_batch(market.database, [record])
    assert await market.stage() is Stage.FREE


async def test_a_key_is_freed_by_hand_while_nothing_is_held(market: Market) -> None:
    hold = await market.claimed()
    await claims.free(market.database, market.place, a_hold(market.funds, 1).call_id)
    assert await market.stage() is Stage.RUNNING, "it is another call's"
    await claims.free(market.database, market.place, hold.call_id)
    assert await market.stage() is None
    hold = await market.held()
    await claims.free(market.database, market.place, hold.call_id)
    assert await market.stage() is Stage.RUNNING


async def test_a_process_that_died_before_its_hold_leaves_its_key(market: Market) -> None:
    await market.claimed()
    await leases.forget(market.database, [market.process_id])
    assert await market.stage() is Stage.FREE


async def test_a_process_that_died_with_a_hold_leaves_its_key_when_the_hold_is_released(
    market: Market,
) -> None:
    hold = await market.held()
    await leases.forget(market.database, [market.process_id])
    assert await market.stage() is Stage.RUNNING
    await ledger.release_holds_of(market.database, [market.process_id], 10)
    await leases.forget(market.database, [market.process_id])
    assert await market.stage() is Stage.FREE
    await claims.free(market.database, market.place, hold.call_id)
    assert await market.stage() is None


async def test_a_process_that_died_after_its_settlement_does_not_leave_its_key(
    market: Market,
) -> None:
    hold = await market.held()
    await market.settle(hold, tokens=1, status=200, code="served")
    await leases.forget(market.database, [market.process_id])
    assert await market.stage() is Stage.SERVED


async def test_a_call_that_never_got_to_its_hold_leaves_its_key_when_its_time_is_over(
    market: Market,
) -> None:
    hold = await market.claimed(lasts_s=60.0)
    assert await market.stage(hold.created_at + timedelta(seconds=59)) is Stage.RUNNING
    assert await market.stage(hold.created_at + timedelta(seconds=60)) is Stage.FREE


async def test_a_key_expires_but_not_while_its_call_runs(market: Market) -> None:
    hold = await market.held()
    tomorrow = hold.created_at + timedelta(days=1, seconds=1)
    assert await market.stage(tomorrow) is Stage.RUNNING
    await market.settle(hold, tokens=1, status=200, code="served")
    assert await market.stage() is Stage.SERVED
    assert await market.stage(tomorrow) is Stage.FREE


async def test_who_lost_its_key_before_its_hold_does_not_stand(market: Market) -> None:
    """A process taken for dead comes back: its hold opens, but another has the key by now."""
    late = await market.claimed(lasts_s=1.0)
    assert await market.take_over(late.created_at + timedelta(seconds=2))
    await ledger.hold_batch(market.database, [late], market.process_id)
    assert not await claims.stands(market.database, market.place, late.call_id)


async def test_who_stands_with_a_hold_is_never_taken_over(market: Market) -> None:
    hold = await market.held()
    assert await claims.stands(market.database, market.place, hold.call_id)
    assert not await market.take_over(hold.created_at + timedelta(days=2))
    await market.release(hold)
    assert await market.take_over()


async def test_of_standing_and_taking_over_at_once_one_wins(
    market: Market, database_url: str
) -> None:
    """The row's lock decides, whichever comes first."""
    other = await ledger_connection(database_url)
    outcomes = set()
    for _ in range(30):
        late = await market.claimed(lasts_s=1.0)
        at = late.created_at + timedelta(seconds=2)
        await ledger.hold_batch(market.database, [late], market.process_id)
        rival = market.wanted(a_hold(market.funds, 5_000))
        stands, taken = await asyncio.gather(
            claims.stands(market.database, market.place, late.call_id),
            claims.take_over(other, rival, at),
        )
        outcomes.add((stands, taken))
        await market.release(late)
        await market.database.execute("DELETE FROM idempotency_keys")
    assert outcomes == {(True, False)}, "its hold was open before it asked"
    await other.close()


async def test_a_key_of_the_control_plane_is_no_call(market: Market) -> None:
    await market.database.execute(
        "INSERT INTO idempotency_keys (account_id, key, request_sha256, status, answer,"
        " created_at, expires_at) VALUES ($1, $2, $3, 201, '', $4, $5)",
        *(market.place.account_id, market.place.key, MEANING, NOW, NOW + timedelta(hours=1)),
    )
    assert await market.stage() is Stage.NO_CALL
    assert await market.stage(NOW + timedelta(hours=2)) is Stage.FREE

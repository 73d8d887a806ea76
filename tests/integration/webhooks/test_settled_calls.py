"""Settled calls are told to who pays, who is paid and operators: none is missed or told twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from msgspec.structs import replace

from broker.core.ledger import Hold
from broker.flows.webhooks.replay_events import replay_events
from broker.store import ledger
from broker.store.access.accounts import Account, Role
from broker.store.money.plans import id_at
from tests.integration.ledger.entries import (
    ENDPOINT,
    PROCESS,
    a_capture,
    a_hold,
    fund,
    ledger_connection,
)
from tests.integration.webhooks.office import Office, caller
from tests.integration.webhooks.target import Target


@dataclass(frozen=True)
class Trade:
    """A consumer with money, a provider with an endpoint, and the ledger."""

    connection: asyncpg.Connection
    office: Office
    consumer: Account
    provider: Account

    async def hold(self, admitted: timedelta = timedelta(0)) -> Hold:
        """A call under way, admitted so long ago by its id."""
        assert self.consumer.ledger_account is not None
        hold = a_hold(self.consumer.ledger_account, 9_000)
        if admitted:
            hold = replace(hold, call_id=old_id(hold.call_id, admitted))
        await ledger.hold_batch(self.connection, [hold], PROCESS)
        return hold

    async def settle(self, hold: Hold, tokens: int = 3) -> str:
        assert self.provider.ledger_account is not None
        take = await ledger.take_account(self.connection, PROCESS)
        capture = a_capture(hold, *([(self.provider.ledger_account, tokens)] if tokens else []))
        [done] = await ledger.settle_batch(self.connection, [capture], take)
        assert done.settled
        return str(hold.call_id)

    async def call(self) -> str:
        return await self.settle(await self.hold())

    async def round(self, **later: float) -> None:
        """Let the clock, which must not be behind the ledger's, go on and the courier look."""
        self.office.now = max(self.office.now, datetime.now(UTC)) + timedelta(**later)
        await self.office.round()


def old_id(call_id: UUID, ago: timedelta) -> UUID:
    """The id that a call would have had so long before."""
    at = datetime.fromtimestamp((call_id.int >> 80) / 1_000, UTC)
    return UUID(int=id_at(at - ago).int | (call_id.int & (2**80 - 1)))


@pytest.fixture
async def trade(office: Office, shop: Account, database_url: str) -> AsyncIterator[Trade]:
    connection = await ledger_connection(database_url)
    acme = await office.account(Role.PROVIDER, "acme")
    assert shop.ledger_account is not None
    await fund(connection, shop.ledger_account, 100_000_000)
    await connection.execute(
        "INSERT INTO deployments (id, provider_id, name, url, kind, capacity, region, retains_data,"
        " trains_on_data, retention_days, proof, nonce, signing_key_sealed, status, created_at,"
        " updated_at) VALUES ($1, $2, 'gpu', 'http://x', 'openai', 1, 'eu', false, false, 0,"
        " 'dns', '', '', 'listed', now(), now())",
        *(ENDPOINT, acme.id),
    )
    await connection.execute(
        "INSERT INTO endpoints (id, deployment_id, provider_id, name, model, version,"
        " upstream_model, tasks, created_at)"
        " VALUES ($1, $1, $2, 'small', 'm', '1', 'm', '{chat}', now())",
        *(ENDPOINT, acme.id),
    )
    yield Trade(connection, office, shop, acme)
    await connection.close()


async def test_each_side_is_told_what_concerns_it(trade: Trade, target: Target) -> None:
    office = trade.office
    rival = await office.account(Role.CONSUMER, "rival")
    boss = await office.account(Role.OPERATOR, "boss")
    for owner in (trade.consumer, trade.provider, boss, rival):
        await office.subscribe(owner, f"{target.url}/{owner.name}", "call.settled")
    await office.subscribe(trade.consumer, f"{target.url}/all", "*")
    call_id = await trade.call()
    await trade.settle(await trade.hold(), tokens=0)
    for _ in range(2):
        await trade.round()
    told = {got.path.removeprefix("/hook/"): got.event for got in target.got}
    assert len(target.got) == len(told) == 3, "not to strangers, not under *, not of free calls"
    served = [{"endpoint": "acme/small", "tokens_in": 3, "tokens_out": 0, "charge_usd": "0.000003"}]
    assert told["shop"]["data"] == {"call": call_id, "charge_usd": "0.000003", "served": served}
    assert (
        told["acme"]["data"]
        == told["boss"]["data"]
        == told["shop"]["data"]
        | {
            "take_usd": "0.0000003",
            "earnings_usd": "0.0000027",
        }
    )
    assert {(each["id"], each["object"]) for each in told.values()} == {
        (call_id, f"calls/{call_id}")
    }


async def test_a_call_that_was_open_for_long_is_told_when_it_settles(
    trade: Trade, target: Target
) -> None:
    await trade.office.subscribe(trade.consumer, target.url, "call.*")
    long = await trade.hold(timedelta(minutes=20))
    for _ in range(3):
        quick = await trade.call()
        await trade.round()
    assert quick in target.ids
    settled = await trade.settle(long)
    for _ in range(3):
        await trade.round()
    assert target.ids.count(settled) == 1
    assert len(target.ids) == len(set(target.ids)) == 4


async def test_a_transaction_that_commits_after_a_round_is_not_missed(
    trade: Trade, target: Target, database_url: str
) -> None:
    await trade.office.subscribe(trade.consumer, target.url, "call.settled")
    slow = await ledger_connection(database_url)
    hold = await trade.hold()
    async with slow.transaction():
        late = await Trade(slow, trade.office, trade.consumer, trade.provider).settle(hold)
        await trade.round(minutes=2)
        await trade.round(minutes=2)
        assert target.got == []
    await trade.round(seconds=2)
    assert target.ids == [late]
    await slow.close()


async def test_a_call_with_an_id_older_than_the_overlap_is_found_by_the_look_back(
    trade: Trade, target: Target
) -> None:
    """Its hold waited long, or its broker's clock is behind; it settles between two rounds."""
    await trade.office.subscribe(trade.consumer, target.url, "call.settled")
    await trade.round(minutes=6)  # it looks back now, however old the database is
    old = await trade.settle(await trade.hold(timedelta(minutes=50)))
    await trade.round(seconds=1)
    assert target.got == []
    await trade.round(minutes=5)
    await trade.round(minutes=5)
    assert target.ids == [old]


async def test_what_settled_before_the_subscription_is_told_only_by_a_replay(
    trade: Trade, target: Target
) -> None:
    before = await trade.call()
    trade.office.now = datetime.now(UTC)
    made = await trade.office.subscribe(trade.consumer, target.url, "call.settled")
    after = await trade.call()
    for minutes in (0, 6, 6):
        await trade.round(minutes=minutes)
    assert target.ids == [after]
    office = trade.office
    async with office.engine.begin() as connection:
        since = office.now - timedelta(hours=1)
        owner = caller(trade.consumer)
        queued = await replay_events(connection, owner, made.webhook.id, since, office.now)
        assert queued.events == 2
        one = await replay_events(connection, owner, made.webhook.id, UUID(before), office.now)
        assert one.events == 1
    await trade.round()
    assert sorted(target.ids[1:]) == sorted([before, after])


async def test_no_worker_for_days_misses_no_call(trade: Trade, target: Target) -> None:
    await trade.office.subscribe(trade.consumer, target.url, "call.settled")
    await trade.round()
    calls = [await trade.call() for _ in range(3)]
    await trade.round(days=2)
    await trade.round(minutes=6)
    assert sorted(target.ids) == sorted(calls)

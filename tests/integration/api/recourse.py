"""Calls with charge lines of several providers, and what became of everybody's money."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from uuid import UUID

import pytest
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.core.candidates.view import RoutingLimits
from broker.core.catalog import Task
from broker.core.dispatch import Attempt, End
from broker.core.ledger import CallRecord, Hold, line, settlement
from broker.core.outcome import DELIVERED
from broker.core.requirements import Requirements
from broker.core.routing import route
from broker.core.story import encode
from broker.store import ledger
from broker.store.access.accounts import Account
from broker.store.books.transfers import Transfer, TransferKind, post, world
from broker.store.money.purses import purse_of
from broker.store.money.recourse import maturities
from broker.store.tables import balances, ledger_accounts
from pricing.book import Rate
from tests.integration.api.conftest import Person, SmallBroker
from tests.integration.api.listing import list_endpoints, publish
from tests.integration.ledger.entries import ledger_connection

RATE = Rate(rate_in_micros=1_000_000, rate_out_micros=2_000_000, rate_call_nanos=0)
"""A dollar per million tokens in: 1,000 nano-dollars a token."""
TAKE_BPS = 1_000


@dataclass(frozen=True)
class Told:
    """What the call log says of a call beside its money."""

    key_id: str = "k1"
    task: str = "chat"
    domain: str | None = "law"
    task_label: str | None = "summarise"
    stream: bool = False
    duration_ms: float = 500.0
    model: str = "auto"
    labels: Mapping[str, str] | None = None


async def open_market(broker: SmallBroker, *providers: Person) -> None:
    """Each provider lists one endpoint; numbers follow their order."""
    for provider in providers:
        await list_endpoints(broker, provider.account)
    await publish(broker, 1, 1_000_000)


@pytest.fixture
async def shop(
    broker: SmallBroker,
    operator: Person,
    consumer: Person,
    provider: Person,
    other_provider: Person,
) -> Person:
    """A consumer with a dollar, in a market of two equal endpoints."""
    await open_market(broker, provider, other_provider)
    await operator.http.post("/api/accounts/shop/topups", json={"amount_usd": "1"})
    return consumer


async def charge(
    broker: SmallBroker,
    consumer: Person,
    *shares: tuple[int, int],
    told: Told | None = None,
    story: bytes = b"",
) -> UUID:
    """A call of which each (endpoint number, tokens in) was charged, 1,000 nano-dollars a token."""
    assert consumer.account.ledger_account is not None
    told, now = told or Told(), broker.clock()
    lines = tuple(
        line(attempt, endpoint.id, endpoint.ledger_account, (tokens, 0), (RATE, 1, TAKE_BPS))
        for attempt, (number, tokens) in enumerate(shares)
        for endpoint in [broker.market.endpoint(number)]
    )
    amount = sum(each.charge_nanos for each in lines)
    hold = Hold(
        uuid7(),
        consumer.account.ledger_account,
        told.key_id,
        amount + 1_000,
        now,
        now + timedelta(seconds=400),
    )
    done = settlement(hold, lines, now, _record(consumer, hold, amount, told, story))
    connection = await ledger_connection(broker.settings.database_url)
    try:
        take = await ledger.take_account(connection, 1)
        [held] = await ledger.hold_batch(connection, [hold], 1)
        [settled] = await ledger.settle_batch(connection, [done], take)
    finally:
        await connection.close()
    assert held.accepted
    assert settled.settled
    return hold.call_id


def _record(consumer: Person, hold: Hold, amount: int, told: Told, story: bytes) -> CallRecord:
    return CallRecord(
        id=hold.call_id,
        created_at=hold.created_at,
        account_id=consumer.account.id,
        key_id=told.key_id,
        task=told.task,
        model=told.model,
        domain=told.domain,
        stream=told.stream,
        status=200,
        code="served",
        endpoint_number=0,
        price_version=1,
        hold_nanos=hold.amount_nanos,
        charge_nanos=amount,
        tokens_in=0,
        tokens_out=0,
        ttft_ms=None,
        duration_ms=told.duration_ms,
        task_label=told.task_label,
        session_id=None,
        labels_json=None if told.labels is None else json.dumps(told.labels),
        story=story,
    )


def a_story(broker: SmallBroker, consumer: Person, *attempts: tuple[int, float, float]) -> bytes:
    """The story of a call that the best endpoints delivered: (endpoint number, ms to the first
    token, ms in all), one attempt each."""
    wanted = Requirements(consumer.account.id, Task.CHAT, "auto", 1_200, 1_000, 1_000)
    size = len(broker.market.endpoints)
    broker.pulse.fit(size, size)
    decision = route(wanted, broker.market, broker.pulse, RoutingLimits(), (Random(1), 0.0))
    assert decision is not None
    candidates = {each.number: each for each in decision.plan}
    made = []
    for index, (number, ttft_ms, duration_ms) in enumerate(attempts):
        attempt = Attempt(index, candidates[number], 0.0, started_s=10.0)
        attempt.first_content_s = 10.0 + ttft_ms / 1_000
        attempt.ended_s = 10.0 + duration_ms / 1_000
        attempt.outcome = DELIVERED
        made.append(attempt)
    return encode(wanted, decision, made, End.DELIVERED, 10.0)


async def posted(connection: AsyncConnection, account: Account) -> dict[str, int]:
    """What stands in each ledger account of an account, by kind; nano-dollars."""
    query = (
        select(ledger_accounts.c.kind, balances.c.posted_nanos)
        .join(balances, balances.c.ledger_account_id == ledger_accounts.c.id)
        .where(ledger_accounts.c.owner_id == account.id)
    )
    return {row.kind: row.posted_nanos for row in await connection.execute(query)}


async def taken(connection: AsyncConnection) -> int:
    """What the broker has earned; nano-dollars."""
    query = (
        select(balances.c.posted_nanos)
        .join(ledger_accounts, ledger_accounts.c.id == balances.c.ledger_account_id)
        .where(ledger_accounts.c.kind == "take")
    )
    return sum((await connection.execute(query)).scalars())


async def mature(broker: SmallBroker, provider: Account, before: datetime) -> None:
    """Move all pending earnings of a provider to what is available, and its watermark on."""
    async with broker.engine.begin() as connection:
        purses = await purse_of(connection, provider.id)
        pending = (await posted(connection, provider))["earnings"]
        ends = (purses.earnings, purses.available)
        await _move(connection, ends, pending, TransferKind.MATURITY, broker.clock())
        watermark = {"provider_id": provider.id, "matured_before": before}
        await connection.execute(insert(maturities).values(**watermark))


async def pay_out(broker: SmallBroker, provider: Account, amount_nanos: int) -> None:
    """Send a provider some of what is available."""
    async with broker.engine.begin() as connection:
        purses = await purse_of(connection, provider.id)
        ends = (purses.available, await world(connection))
        await _move(connection, ends, amount_nanos, TransferKind.PAYOUT_SENT, broker.clock())


async def _move(
    connection: AsyncConnection,
    ends: tuple[UUID, UUID],
    amount_nanos: int,
    kind: TransferKind,
    at: datetime,
) -> None:
    transfer = Transfer(uuid7(), *ends, amount_nanos, kind, "test", "test", at)
    await post(connection, transfer)

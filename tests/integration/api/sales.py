"""Makes calls without a data plane: decided by the router, held, settled; attempted on paper."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from uuid import UUID

import asyncpg
from msgspec.structs import replace
from uuid_utils.compat import uuid7

from broker.core.candidates.view import RoutingLimits
from broker.core.catalog import Task
from broker.core.decision import Candidate, Decision
from broker.core.dispatch import Attempt, End
from broker.core.ledger import CallRecord, Hold, line, settlement
from broker.core.outcome import DELIVERED, Fault, Outcome
from broker.core.requirements import Requirements
from broker.core.routing import route
from broker.core.story import encode
from broker.store import ledger
from tests.integration.api.conftest import Person, SmallBroker
from tests.integration.ledger.entries import ledger_connection

TOKENS = (1_000, 500)
"""In and out, of each delivered attempt."""


async def sell(broker: SmallBroker, consumer: Person, *, fails_first: bool = False) -> UUID:
    """A chat that the best endpoint serves, or with `fails_first` the next one."""
    wanted = Requirements(consumer.account.id, Task.CHAT, "auto", 1_200, 1_000, 1_000)
    size = len(broker.market.endpoints)
    broker.pulse.fit(size, size)
    decision = route(wanted, broker.market, broker.pulse, RoutingLimits(), (Random(1), 0.0))
    assert decision is not None
    attempts = _attempts(decision, fails_first)
    connection = await ledger_connection(broker.settings.database_url)
    try:
        return await _settle(broker, connection, consumer, (wanted, decision, attempts))
    finally:
        await connection.close()


async def hold_only(broker: SmallBroker, consumer: Person) -> UUID:
    """A call under way."""
    connection = await ledger_connection(broker.settings.database_url)
    try:
        hold = _hold(broker, consumer, 5_000_000)
        await ledger.hold_batch(connection, [hold], 1)
    finally:
        await connection.close()
    return hold.call_id


def _attempts(decision: Decision, fails_first: bool) -> list[Attempt]:
    best, *rest = decision.plan
    if not fails_first:
        return [_attempt(0, best, DELIVERED)]
    refused = Outcome(Fault.CONNECT_FAILED, detail="connection refused", sent=False)
    return [_attempt(0, best, refused), _attempt(1, rest[0], DELIVERED)]


def _attempt(index: int, candidate: Candidate, outcome: Outcome) -> Attempt:
    attempt = Attempt(index, candidate, 0.0, started_s=10.0 + index)
    attempt.outcome, attempt.ended_s = outcome, 10.5 + index
    if outcome.fault is None:
        attempt.first_content_s = 10.1 + index
        attempt.tokens_in, attempt.tokens_out = TOKENS
    return attempt


async def _settle(
    broker: SmallBroker,
    connection: asyncpg.Connection,
    consumer: Person,
    story: tuple[Requirements, Decision, list[Attempt]],
) -> UUID:
    wanted, decision, attempts = story
    served = attempts[-1]
    endpoint = broker.market.endpoint(served.candidate.number)
    terms = (served.candidate.rate, decision.price_version, endpoint.take_bps)
    charged = line(served.index, endpoint.id, endpoint.ledger_account, TOKENS, terms)
    served.charge_nanos = charged.charge_nanos
    hold = _hold(broker, consumer, decision.hold_nanos)
    record = CallRecord(
        id=hold.call_id,
        created_at=hold.created_at,
        account_id=consumer.account.id,
        key_id=hold.key_id,
        task="chat",
        model="auto",
        domain=None,
        stream=False,
        status=200,
        code="",
        endpoint_number=served.candidate.number,
        price_version=decision.price_version,
        hold_nanos=hold.amount_nanos,
        charge_nanos=charged.charge_nanos,
        tokens_in=TOKENS[0],
        tokens_out=TOKENS[1],
        ttft_ms=100.0,
        duration_ms=500.0,
        task_label="summarise",
        session_id="s1",
        labels_json='{"team": "a"}',
        story=encode(wanted, decision, attempts, End.DELIVERED, 10.0),
    )
    take = await ledger.take_account(connection, 1)
    assert [each.accepted for each in await ledger.hold_batch(connection, [hold], 1)] == [True]
    settled_at = hold.created_at + timedelta(seconds=1)
    done = settlement(hold, (charged,), settled_at, replace(record))
    assert [each.settled for each in await ledger.settle_batch(connection, [done], take)] == [True]
    return hold.call_id


def _hold(broker: SmallBroker, consumer: Person, amount_nanos: int) -> Hold:
    assert consumer.account.ledger_account is not None
    now = broker.clock()
    return Hold(
        uuid7(),
        consumer.account.ledger_account,
        consumer.key.split("_")[1],
        amount_nanos,
        now,
        now + timedelta(seconds=400),
    )

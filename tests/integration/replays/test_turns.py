"""A turn whose claim got lost on the way to the database or back is given back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from broker.core.call import Call, Payer, TensorBody
from broker.errors import Conflict, Unavailable
from broker.flows.books.batch import LedgerBatcher
from broker.flows.books.lane_ahead import HoldTerms
from broker.flows.calls.replay import serve_once
from broker.flows.calls.turn import Keyed, Turn
from broker.flows.runtime import Runtime
from broker.settings import Limits, Settings
from broker.store import leases
from broker.store.access import claims
from broker.store.database import create_pool
from broker.store.sealing import Sealer
from tests.fakes import requirements
from tests.integration.ledger.entries import ledger_connection, open_account
from tests.integration.ledger.waiting import until_blocked
from tests.integration.ledger.way import Way
from tests.waiting import until

KEYED = Keyed("order-1", b"m" * 32, "wait", keeps=True)


@dataclass
class Hands:
    """The share of the runtime that a turn uses, its way to the database one that can be cut."""

    settings: Settings
    pool: asyncpg.Pool
    ledger: LedgerBatcher
    sealer: Sealer = field(default_factory=lambda: Sealer("ab" * 32))
    running: set[asyncio.Task[None]] = field(default_factory=set)
    stopping: bool = False

    def clock(self) -> datetime:
        return datetime.now(UTC)

    def now_s(self) -> float:
        return time.monotonic()


@dataclass
class Scene:
    """A broker's hands, the way to the database, the database itself, and who calls."""

    hands: Hands
    way: Way
    database: asyncpg.Connection
    account: UUID

    @property
    def runtime(self) -> Runtime:
        return cast("Runtime", self.hands)

    def call(self) -> Call:
        now_s, call_id = time.monotonic(), uuid7()
        return Call(
            id=call_id,
            id_text=str(call_id),
            payer=Payer(self.account, "key", uuid7()),
            wanted=requirements(),
            body=TensorBody((), b""),
            created_at=datetime.now(UTC),
            started_s=now_s,
            deadline_s=now_s + 60.0,
        )

    async def claimed(self) -> int:
        count: int = await self.database.fetchval("SELECT count(*) FROM idempotency_keys")
        return count


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    database = await ledger_connection(database_url)
    funds = await open_account(database, "consumer")
    owner = await database.fetchval("SELECT owner_id FROM ledger_accounts WHERE id = $1", funds)
    process = await leases.register(database)
    async with Way(database_url) as way:
        pool = await create_pool(way.url)
        settings = Settings(database_url, "redis://unused", "ab" * 32, limits=Limits())
        hands = Hands(settings, pool, LedgerBatcher(pool, uuid7(), HoldTerms(process)))
        yield Scene(hands, way, database, owner)
        for task in hands.running:
            task.cancel()
        await asyncio.gather(*hands.running, return_exceptions=True)
        pool.terminate()
    await database.close()


async def _warm(scene: Scene) -> None:
    """Have a connection on which all is prepared, so that what is cut next is the claim itself."""
    other = _turn(scene)
    async with scene.hands.pool.acquire() as connection:
        assert await claims.claim(connection, other.claim)
        await claims.free(connection, other.claim.place, other.claim.call_id)


def _turn(scene: Scene) -> Turn:
    return Turn(scene.call(), KEYED, scene.runtime)


async def test_a_claim_whose_answer_was_lost_is_given_back(scene: Scene) -> None:
    await _warm(scene)
    scene.way.swallow_next_answer = True
    with pytest.raises(Unavailable) as refused:
        await serve_once(scene.call(), KEYED, scene.runtime)
    assert refused.value.retryable
    assert scene.way.swallowed.is_set()

    async def nothing_claimed() -> bool:
        return await scene.claimed() == 0 and not scene.hands.running

    await until(nothing_claimed)


async def test_while_the_database_is_away_no_turn_comes_and_it_is_told(scene: Scene) -> None:
    await _warm(scene)
    scene.way.close()
    with pytest.raises(Unavailable):
        await serve_once(scene.call(), KEYED, scene.runtime)
    with pytest.raises(Unavailable):
        await _turn(scene).stands()
    assert not await _turn(scene).free()


async def test_who_leaves_while_its_claim_is_under_way_gives_it_back(scene: Scene) -> None:
    await _warm(scene)
    blocked = await asyncpg.connect(str(scene.hands.settings.database_url))
    transaction = blocked.transaction()
    await transaction.start()
    await blocked.execute("LOCK TABLE idempotency_keys IN EXCLUSIVE MODE")
    leaving = asyncio.create_task(serve_once(scene.call(), KEYED, scene.runtime))
    await until_blocked(scene.database)
    leaving.cancel()
    await transaction.rollback()
    await asyncio.gather(leaving, return_exceptions=True)

    async def nothing_claimed() -> bool:
        return await scene.claimed() == 0 and not scene.hands.running

    await until(nothing_claimed)
    await blocked.close()


async def test_a_turn_that_another_took_over_does_not_stand(scene: Scene) -> None:
    turn = _turn(scene)
    async with scene.hands.pool.acquire() as connection:
        assert await claims.claim(connection, turn.claim)
    await turn.stands()
    later = _turn(scene)
    await scene.database.execute("UPDATE idempotency_keys SET call_id = $1", later.claim.call_id)
    with pytest.raises(Conflict, match="Another call"):
        await turn.stands()
    assert await turn.free()
    assert await scene.claimed() == 1
    assert await later.free()
    assert await scene.claimed() == 0


async def test_what_is_heard_beyond_the_limit_is_let_go(scene: Scene) -> None:
    turn: Any = _turn(scene)
    limit = scene.hands.settings.limits.replay_bytes_max
    for _ in range(3):
        turn.hear(b"x" * (limit // 2))
    assert turn._heard is None

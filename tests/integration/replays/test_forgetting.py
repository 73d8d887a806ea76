"""Kept answers go when their time is over, and not before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from broker.flows.calls.forget_answer import forget_expired
from broker.jobs import answers as answers_jobs
from broker.store.calls import answers
from broker.store.calls.answers import Owner, StoredAnswer
from broker.store.database import create_pool
from broker.store.sealing import Sealer, SecretUnreadable
from broker.worker import JOBS
from pricing.book import Rate
from tests.integration.ledger.entries import open_account

NOW = datetime.now(UTC)
SEALER = Sealer("ab" * 32)
ANSWER = StoredAnswer("acme/small", Rate(1, 2, 0), 7, [(b"content-type", b"text/plain")], b"hello")


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await create_pool(database_url)
    yield pool
    await pool.close()


async def _kept(pool: asyncpg.Pool, *lasting_s: float) -> list[UUID]:
    async with pool.acquire() as connection:
        funds = await open_account(connection, "consumer")
        account = await connection.fetchval(
            "SELECT owner_id FROM ledger_accounts WHERE id = $1", funds
        )
        calls = [uuid7() for _ in lasting_s]
        for call_id, seconds in zip(calls, lasting_s, strict=True):
            owner = Owner(account, call_id, NOW, NOW + timedelta(seconds=seconds))
            await answers.put(connection, owner, ANSWER, SEALER)
    return calls


async def test_only_what_has_expired_is_forgotten(pool: asyncpg.Pool) -> None:
    *old, young = await _kept(pool, 1, 2, 3, 100)
    assert await forget_expired(pool, NOW) == 0
    assert await forget_expired(pool, NOW + timedelta(seconds=3)) == 3
    async with pool.acquire() as connection:
        assert await answers.find(connection, young, SEALER, NOW) == ANSWER
        for call_id in old:
            assert await answers.find(connection, call_id, SEALER, NOW) is None
    assert all(job in JOBS for job in answers_jobs.JOBS)


async def test_an_answer_is_bound_to_its_call(pool: asyncpg.Pool) -> None:
    one, other = await _kept(pool, 100, 100)
    async with pool.acquire() as connection:
        await connection.execute(
            "UPDATE stored_answers a SET sealed = b.sealed FROM stored_answers b"
            " WHERE a.call_id = $1 AND b.call_id = $2",
            *(one, other),
        )
        with pytest.raises(SecretUnreadable, match="belongs to another row"):
            await answers.find(connection, one, SEALER, NOW)

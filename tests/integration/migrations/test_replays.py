"""Answers that were kept before they were sealed are given again after."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.errors import Conflict
from broker.flows.access.once import Memory, Request, once
from broker.store.access.idempotency import Answer
from broker.store.database import create_engine
from broker.store.sealing import Sealer
from tests.integration.migrations.upgrading import DatabaseAt, insert_account

NOW = datetime.now(UTC)


async def _never(_: AsyncConnection) -> Answer:
    raise AssertionError("it was done before")


async def test_an_answer_kept_before_is_given_again(database_at: DatabaseAt) -> None:
    async with database_at("0005") as old:
        account, _ = await insert_account(old.driver, "consumer", "shop")
        await old.driver.execute(
            "INSERT INTO idempotency_keys VALUES ($1, 'order-1', $2, 201, $3, $4, $5)",
            *(account, hashlib.sha256(b"buy").digest(), b'{"ok":true}'),
            *(NOW, NOW + timedelta(hours=1)),
        )
        await old.upgrade()
        engine = create_engine(old.url)
        memory = Memory(engine, Sealer("ab" * 32), 60.0)
        done = await once(memory, Request(account, "order-1", b"buy"), _never, NOW)
        assert done.replayed
        assert (done.answer.status, done.answer.body) == (201, b'{"ok":true}')
        with pytest.raises(Conflict):
            await once(memory, Request(account, "order-1", b"sell"), _never, NOW)
        await engine.dispose()

"""Answers kept under `Idempotency-Key`, so that a request sent twice is done once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.errors import Conflict
from broker.store.tables import idempotency_keys

KEPT_FOR = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered the first time."""

    status: int
    body: bytes


async def claim(
    connection: AsyncConnection, account_id: UUID, key: str, request_sha256: bytes, now: datetime
) -> Answer | None:
    """Claim `key` for this transaction; None means: go on, and `keep` the answer.

    While another transaction has claimed the same key this waits for its end: after its commit its
    answer is returned, after its rollback the key is free again. Raises Conflict when the key
    stands for another request.
    """
    fresh = {
        "request_sha256": request_sha256,
        "status": 0,
        "answer": b"",
        "created_at": now,
        "expires_at": now + KEPT_FOR,
    }
    claimed = await connection.execute(
        insert(idempotency_keys)
        .values(account_id=account_id, key=key, **fresh)
        .on_conflict_do_update(
            index_elements=["account_id", "key"],
            set_=fresh,
            where=idempotency_keys.c.expires_at <= now,
        )
        .returning(idempotency_keys.c.key)
    )
    if claimed.scalar_one_or_none() is not None:
        return None
    row = (
        await connection.execute(
            sa.select(
                idempotency_keys.c.request_sha256,
                idempotency_keys.c.status,
                idempotency_keys.c.answer,
            ).where(idempotency_keys.c.account_id == account_id, idempotency_keys.c.key == key)
        )
    ).one()
    if bytes(row.request_sha256) != request_sha256:
        raise Conflict(
            f"Idempotency-Key '{key}' was used for another request.",
            code="idempotency_key_reused",
        )
    return Answer(row.status, bytes(row.answer))


async def keep(connection: AsyncConnection, account_id: UUID, key: str, answer: Answer) -> None:
    """Keep the answer of a claimed key; the row commits with what the request did."""
    await connection.execute(
        sa.update(idempotency_keys)
        .where(idempotency_keys.c.account_id == account_id, idempotency_keys.c.key == key)
        .values(status=answer.status, answer=answer.body)
    )


async def delete_expired(connection: AsyncConnection, now: datetime) -> int:
    """Delete keys that have expired; return how many."""
    result = await connection.execute(
        sa.delete(idempotency_keys).where(idempotency_keys.c.expires_at <= now)
    )
    return result.rowcount

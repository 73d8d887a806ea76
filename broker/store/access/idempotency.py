"""Answers kept under `Idempotency-Key`, so that a request sent twice is done once.

The answer is sealed, for it may tell what others must not know, and told to none but the key that
asked for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.errors import Conflict
from broker.store.sealing import Sealer
from broker.store.tables import idempotency_keys


@dataclass(frozen=True, slots=True)
class Place:
    """Whose key this is; a key stands for one request of its account, wherever that is sent."""

    account_id: UUID
    key: str

    @property
    def bound_to(self) -> str:
        """What the kept answer is sealed to."""
        return f"idempotency_keys.answer/{self.account_id}/{self.key}"


@dataclass(frozen=True, slots=True)
class Fresh:
    """What a new claim says: the hash of the request, the key that sent it (empty for a caller
    without one), and how long it stands."""

    request_sha256: bytes
    key_id: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered the first time."""

    status: int
    body: bytes


async def claim(
    connection: AsyncConnection, place: Place, fresh: Fresh, sealer: Sealer
) -> Answer | None:
    """Claim a key for this transaction; None means: go on, and `keep` the answer.

    While another transaction has claimed the same key this waits for its end: after its commit its
    answer is returned, after its rollback the key is free again. Raises Conflict when the key
    stands for another request, or for one that another key of the account has sent.
    """
    row = await _claim(connection, place, fresh)
    if row is None:
        return None
    if bytes(row.request_sha256) != fresh.request_sha256:
        raise used_for_another(place.key)
    if row.key_id not in (None, fresh.key_id):
        raise Conflict(
            f"Another key of your account sent this request under '{place.key}'; it was done once.",
            code="idempotency_other_key",
        )
    body = sealer.open(row.answer, place.bound_to) if row.sealed else bytes(row.answer)
    return Answer(row.status, body)


async def _claim(connection: AsyncConnection, place: Place, fresh: Fresh) -> sa.Row[Any] | None:
    """Return the row that stands in the way, None when the key is claimed."""
    said = {
        "request_sha256": fresh.request_sha256,
        "key_id": fresh.key_id,
        "status": 0,
        "answer": b"",
        "sealed": False,
        "call_id": None,
        "process_id": None,
        "free_at": None,
        "created_at": fresh.created_at,
        "expires_at": fresh.expires_at,
    }
    claim = (
        insert(idempotency_keys)
        .values(account_id=place.account_id, key=place.key, **said)
        .on_conflict_do_update(
            index_elements=["account_id", "key"],
            set_=said,
            where=idempotency_keys.c.expires_at <= fresh.created_at,
        )
        .returning(idempotency_keys.c.key)
    )
    while (await connection.execute(claim)).first() is None:
        row = (await connection.execute(sa.select(idempotency_keys).where(_at(place)))).first()
        if row is not None:
            return row
        # It has been deleted in between, for it has expired: so it is free.
    return None


async def keep(connection: AsyncConnection, place: Place, answer: Answer, sealer: Sealer) -> None:
    """Keep the answer of a claimed key; the row commits with what the request did."""
    sealed = sealer.seal(answer.body, place.bound_to)
    await connection.execute(
        sa.update(idempotency_keys)
        .where(_at(place))
        .values(status=answer.status, answer=sealed, sealed=True)
    )


async def delete_expired(connection: AsyncConnection, now: datetime) -> int:
    """Delete keys that have expired; return how many."""
    result = await connection.execute(
        sa.delete(idempotency_keys).where(idempotency_keys.c.expires_at <= now)
    )
    return result.rowcount


def used_for_another(key: str) -> Conflict:
    """Return the error for a key that stands for another request."""
    return Conflict(
        f"Idempotency-Key '{key}' was used for another request.", code="idempotency_conflict"
    )


def _at(place: Place) -> sa.ColumnElement[bool]:
    return sa.and_(
        idempotency_keys.c.account_id == place.account_id, idempotency_keys.c.key == place.key
    )

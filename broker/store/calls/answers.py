"""What calls answered, for the keys that opted in to have it kept: sealed, until it expires.

Content is in this table and in no other.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.ledger import Connection
from broker.store.sealing import Sealer
from broker.store.tables import table
from pricing.book import Rate

stored_answers = table(
    "stored_answers",
    """
    call_id uuid, account_id uuid, sealed bytea, created_at timestamptz, expires_at timestamptz
    """,
)


class StoredAnswer(msgspec.Struct, frozen=True, array_like=True):
    """One answer as its caller had it: who served it at which price, and what it said."""

    endpoint: str
    rate: Rate
    price_version: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(StoredAnswer).decode


class Owner(msgspec.Struct, frozen=True):
    """Whose answer it is, of which call, and until when it is kept."""

    account_id: UUID
    call_id: UUID
    created_at: datetime
    expires_at: datetime


async def put(connection: Connection, owner: Owner, answer: StoredAnswer, sealer: Sealer) -> None:
    """Keep an answer; committed on return. A call's second answer is not kept."""
    sealed = sealer.seal(_encode(answer), _bound_to(owner.call_id))
    await connection.execute(
        "INSERT INTO stored_answers (call_id, account_id, sealed, created_at, expires_at)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        *(owner.call_id, owner.account_id, sealed, owner.created_at, owner.expires_at),
    )


async def find(
    connection: Connection, call_id: UUID, sealer: Sealer, now: datetime
) -> StoredAnswer | None:
    """Return a call's answer, None when none is kept. Raises SecretUnreadable."""
    sealed = await connection.fetchval(
        "SELECT sealed FROM stored_answers WHERE call_id = $1 AND expires_at > $2", call_id, now
    )
    return None if sealed is None else _decode(sealer.open(sealed, _bound_to(call_id)))


async def delete(connection: AsyncConnection, call_id: UUID, account_id: UUID) -> bool:
    """Delete an account's answer; return whether there was one."""
    done = await connection.execute(
        sa.delete(stored_answers).where(
            stored_answers.c.call_id == call_id, stored_answers.c.account_id == account_id
        )
    )
    return done.rowcount > 0


async def delete_expired(connection: Connection, now: datetime, limit: int) -> int:
    """Delete up to `limit` expired answers; return how many."""
    done = await connection.execute(
        "DELETE FROM stored_answers WHERE call_id = ANY(ARRAY("
        "SELECT call_id FROM stored_answers WHERE expires_at <= $1 LIMIT $2))",
        *(now, limit),
    )
    return int(done.rpartition(" ")[2])


def _bound_to(call_id: UUID) -> str:
    return f"stored_answers.sealed/{call_id}"

"""What consumers wrote of answers, for the keys that opted in to have content kept: sealed, until
it expires. The last word on a call takes the place of those before."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.calls.answers import Owner
from broker.store.ledger import Connection
from broker.store.sealing import Sealer
from broker.store.tables import table

stored_words = table(
    "stored_words",
    """
    call_id uuid, account_id uuid, sealed bytea, created_at timestamptz, expires_at timestamptz
    """,
)


class Words(msgspec.Struct, frozen=True, array_like=True):
    """What was written."""

    label: str | None
    correction: str | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Words).decode


async def put(connection: AsyncConnection, owner: Owner, words: Words, sealer: Sealer) -> None:
    """Keep what was written of a call."""
    kept = {
        "sealed": sealer.seal(_encode(words), _bound_to(owner.call_id)),
        "created_at": owner.created_at,
        "expires_at": owner.expires_at,
    }
    row = insert(stored_words).values(call_id=owner.call_id, account_id=owner.account_id, **kept)
    await connection.execute(row.on_conflict_do_update(index_elements=["call_id"], set_=kept))


async def find(
    connection: AsyncConnection, call_id: UUID, account_id: UUID, sealer: Sealer, now: datetime
) -> Words | None:
    """Return what an account wrote of a call, None where nothing is kept. Raises
    SecretUnreadable."""
    kept = stored_words.c
    query = sa.select(kept.sealed).where(
        kept.call_id == call_id, kept.account_id == account_id, kept.expires_at > now
    )
    sealed = (await connection.execute(query)).scalar_one_or_none()
    return None if sealed is None else _decode(sealer.open(sealed, _bound_to(call_id)))


async def delete(connection: AsyncConnection, call_id: UUID, account_id: UUID) -> bool:
    """Delete what an account wrote of a call; return whether there was anything."""
    done = await connection.execute(
        sa.delete(stored_words).where(
            stored_words.c.call_id == call_id, stored_words.c.account_id == account_id
        )
    )
    return done.rowcount > 0


async def delete_expired(connection: Connection, now: datetime, limit: int) -> int:
    """Delete up to `limit` of those that have expired; return how many."""
    done = await connection.execute(
        "DELETE FROM stored_words WHERE call_id = ANY(ARRAY("
        "SELECT call_id FROM stored_words WHERE expires_at <= $1 LIMIT $2))",
        *(now, limit),
    )
    return int(done.rpartition(" ")[2])


def _bound_to(call_id: UUID) -> str:
    return f"stored_words.sealed/{call_id}"

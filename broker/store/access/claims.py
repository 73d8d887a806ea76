"""Which call an `Idempotency-Key` stands for, and what became of that call.

A claim says no more than whose call it is. What became of the call is read from the books: its open
hold, its settlement and its record, so that the two can never tell different stories.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from broker.store.access.idempotency import Place
from broker.store.ledger import Connection
from broker.store.sql import statement


@dataclass(frozen=True, slots=True)
class Claim:
    """A call under a key; the key falls free at `free_at` if the call has opened no hold by then.

    `expires_at` is after that, and `created_at` is the call's own.
    """

    place: Place
    request_sha256: bytes
    call_id: UUID
    process_id: int
    created_at: datetime
    free_at: datetime
    expires_at: datetime
    key_id: str = ""
    """The key that sent it."""


class Stage(enum.Enum):
    """How far the call under a key has come."""

    RUNNING = "running"
    SERVED = "served"
    """It was charged, or was served for nothing."""
    FREE = "free"
    """It ended without a charge, or its process died, or its time is over: claim it anew."""
    NO_CALL = "no call"
    """The key stands for a request of the control plane."""


@dataclass(frozen=True, slots=True)
class Former:
    """What a key stands for; cost and code are those of a call that was served."""

    stage: Stage
    request_sha256: bytes
    call_id: UUID | None
    charge_nanos: int
    code: str
    key_id: str | None
    """The key that sent it; None where that was not noted yet."""


async def claim(connection: Connection, wanted: Claim) -> bool:
    """Claim a key that nobody has; committed on return. False when it stands for something."""
    return bool(
        await connection.fetchval(
            "INSERT INTO idempotency_keys (account_id, key, request_sha256, call_id, process_id,"
            " created_at, free_at, expires_at, key_id, status, answer)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, '')"
            " ON CONFLICT DO NOTHING RETURNING true",
            *_row(wanted),
        )
    )


async def look(connection: Connection, place: Place, now: datetime) -> Former | None:
    """Return what a key stands for, None for nothing; locks nothing."""
    row = await connection.fetchrow(statement("claim_stage"), place.account_id, place.key, now)
    if row is None:
        return None
    return Former(
        Stage(row["stage"]),
        row["request_sha256"],
        row["call_id"],
        row["charge_nanos"] or 0,
        row["code"] or "",
        row["key_id"],
    )


async def take_over(connection: Connection, wanted: Claim, now: datetime) -> bool:
    """Claim a key whose call is over and uncharged; committed on return. False when it is not.

    The row is locked before the books are read: a call that `stands` first has its hold seen here,
    and one that comes later finds its claim gone.
    """
    place = wanted.place
    async with connection.transaction():
        await connection.execute(
            "SELECT 1 FROM idempotency_keys WHERE account_id = $1 AND key = $2 FOR UPDATE",
            *(place.account_id, place.key),
        )
        former = await look(connection, place, now)
        if former is None or former.stage is not Stage.FREE:
            return False
        await connection.execute(
            "UPDATE idempotency_keys SET request_sha256 = $3, call_id = $4, process_id = $5,"
            " created_at = $6, free_at = $7, expires_at = $8, key_id = $9, status = 0, answer = '',"
            " sealed = false WHERE account_id = $1 AND key = $2",
            *_row(wanted),
        )
    return True


async def stands(connection: Connection, place: Place, call_id: UUID) -> bool:
    """Whether the key is this call's still, asked once its hold is open, before a byte goes out.

    From a true answer on nobody takes the key over until the hold is closed. The lock is all that
    matters, and nothing is lost with it: its commit need not reach the disk.
    """
    return bool(
        await connection.fetchval(
            "SELECT set_config('synchronous_commit', 'off', true) IS NOT NULL"
            " FROM idempotency_keys WHERE account_id = $1 AND key = $2 AND call_id = $3"
            " FOR NO KEY UPDATE",
            *(place.account_id, place.key, call_id),
        )
    )


async def free(connection: Connection, place: Place, call_id: UUID) -> None:
    """Free the key of a call that was not charged; without effect while its hold is open."""
    await connection.execute(
        "DELETE FROM idempotency_keys WHERE account_id = $1 AND key = $2 AND call_id = $3"
        " AND NOT EXISTS (SELECT FROM open_holds WHERE call_id = $3)"
        " AND NOT EXISTS (SELECT FROM settlements WHERE call_id = $3 AND charge_nanos > 0)",
        *(place.account_id, place.key, call_id),
    )


def _row(claim: Claim) -> tuple[object, ...]:
    return (
        claim.place.account_id,
        claim.place.key,
        claim.request_sha256,
        claim.call_id,
        claim.process_id,
        claim.created_at,
        claim.free_at,
        claim.expires_at,
        claim.key_id,
    )

"""Evidence of how well endpoints answer, which is only ever added to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.core.evidence import Grade, Piece, Source
from broker.store.tables import table

START: Final = UUID(int=0)
"""The cursor before all evidence."""
COUNTED_MAX: Final = 10_000

evidence = table(
    "evidence",
    """
    id uuid, at timestamptz, endpoint_id uuid, domain text, source text, grade text, score double,
    weight double, account_id uuid, call_id uuid, encoder text, vector bytea
    """,
)
_COLUMNS: Final = tuple(Piece.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A piece as it was written; ids rise with the time of writing."""

    id: UUID
    piece: Piece


async def record(connection: AsyncConnection, pieces: Sequence[Piece]) -> None:
    """Write pieces of evidence; other processes learn of them within seconds.

    Raises IntegrityError for an endpoint or an account that is not.
    """
    if pieces:
        rows = [
            {"id": uuid7()} | {name: getattr(each, name) for name in _COLUMNS} for each in pieces
        ]
        await connection.execute(insert(evidence), rows)


async def since(connection: AsyncConnection, cursor: UUID, limit: int) -> list[Recorded]:
    """Return up to `limit` pieces with ids after `cursor`, in the order of their ids.

    Whoever writes at the same time may commit an earlier id later: who reads on and on starts each
    time some seconds before the last, and leaves out what it knows.
    """
    query = select(evidence).where(evidence.c.id > cursor).order_by(evidence.c.id).limit(limit)
    return [_recorded(row) for row in await connection.execute(query)]


async def before_newest(connection: AsyncConnection, count: int) -> UUID:
    """Return the cursor after which there are `count` pieces, START where there are fewer."""
    query = select(evidence.c.id).order_by(evidence.c.id.desc()).offset(count).limit(1)
    return (await connection.execute(query)).scalar() or START


async def count_of_account(connection: AsyncConnection, account_id: UUID, after: datetime) -> int:
    """Return how many pieces an account has given after a moment, COUNTED_MAX at most."""
    given = (
        select(evidence.c.id)
        .where(evidence.c.account_id == account_id, evidence.c.at > after)
        .limit(COUNTED_MAX)
        .subquery()
    )
    query = select(func.count()).select_from(given)
    return int((await connection.execute(query)).scalar_one())


async def take_turn(connection: AsyncConnection, account_id: UUID) -> None:
    """Wait until no other transaction has the turn of this account; held until the end of this."""
    lock = text("SELECT pg_advisory_xact_lock(hashtextextended('evidence/' || :account, 0))")
    await connection.execute(lock, {"account": str(account_id)})


def _recorded(row: Row[Any]) -> Recorded:
    values = {name: getattr(row, name) for name in _COLUMNS}
    values["source"], values["grade"] = Source(row.source), Grade(row.grade)
    return Recorded(row.id, Piece(**values))

"""Evidence of how well endpoints answer, which is only ever added to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.core.cascade import Other
from broker.core.quality.evidence import Grade, Piece, Source
from broker.core.quality.notebook import share_of
from broker.store.tables import table

START: Final = UUID(int=0)
"""The cursor before all evidence."""
EACH_MAX: Final = 5_000
"""Of one source at one endpoint no more are read to begin with."""
_EACH_COUNTED: Final = (8, 64, 512, EACH_MAX)
"""Of very many no more than a few each may be read: then no more are counted."""
_PARTITION: Final = 1_000

evidence = table(
    "evidence",
    """
    id uuid, at timestamptz, endpoint_id uuid, domain text, source text, grade text, score double,
    weight double, account_id uuid, call_id uuid, encoder text, vector bytea,
    run_id uuid, confidence double, groups text,
    agreement double, compared text
    """,
)
_COLUMNS: Final = tuple(Piece.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A piece as it was written; ids rise with the time of writing."""

    id: UUID
    piece: Piece


@dataclass(frozen=True, slots=True)
class Said:
    """How much feedback an account has given."""

    words: int
    others: int
    """So many calls it was of, but for the one that is asked about."""
    weight: float | None
    """Of what was said of that one; None where nothing was."""


async def record(connection: AsyncConnection, pieces: Sequence[Piece]) -> None:
    """Write pieces of evidence; other processes learn of them within seconds.

    Raises IntegrityError for an endpoint or an account that is not.
    """
    await write(connection, [Recorded(uuid7(), each) for each in pieces])


async def write(connection: AsyncConnection, numbered: Sequence[Recorded]) -> None:
    """Write pieces as `record` does, by ids that were made just now."""
    if numbered:
        rows = [
            {"id": each.id} | {name: getattr(each.piece, name) for name in _COLUMNS}
            for each in numbered
        ]
        await connection.execute(insert(evidence), rows)


async def among(connection: AsyncConnection, ids: Collection[UUID]) -> set[UUID]:
    """Return those of these ids that are written."""
    query = select(evidence.c.id).where(evidence.c.id.in_(list(ids)))
    return set((await connection.execute(query)).scalars())


async def ids_since(connection: AsyncConnection, cursor: UUID, limit: int) -> list[UUID]:
    """Return up to `limit` ids after `cursor`, in their order.

    Whoever writes at the same time may commit an earlier id later: who reads on and on starts each
    time some seconds before the last, and leaves out what it knows.
    """
    query = select(evidence.c.id).where(evidence.c.id > cursor).order_by(evidence.c.id).limit(limit)
    return list((await connection.execute(query)).scalars())


async def find(connection: AsyncConnection, ids: Collection[UUID]) -> list[Recorded]:
    """Return the pieces of these ids, in the order of the ids."""
    query = select(evidence).where(evidence.c.id.in_(list(ids))).order_by(evidence.c.id)
    return [_recorded(row) for row in await connection.execute(query)]


async def since(connection: AsyncConnection, cursor: UUID, limit: int) -> list[Recorded]:
    """Return up to `limit` pieces with ids after `cursor`, in the order of their ids."""
    return await find(connection, await ids_since(connection, cursor, limit))


async def newest_id(connection: AsyncConnection) -> UUID:
    """Return the id of the newest piece, START where there is none."""
    query = select(evidence.c.id).order_by(evidence.c.id.desc()).limit(1)
    return (await connection.execute(query)).scalar() or START


async def newest_of_each(connection: AsyncConnection, total: int) -> AsyncIterator[list[Recorded]]:
    """Yield up to `total` pieces of endpoints that are not retired, or may yet come back, in the
    order of their ids: the newest of each source at each endpoint, of each as many as of every
    other."""
    sources = {"sources": list(Source)}
    limit = 0
    for most in _EACH_COUNTED:
        counted = await connection.execute(text(_COUNTS), sources | {"limit": most})
        limit = share_of(counted.scalars().all(), total)
        if limit < most:
            break
    found = await connection.stream(text(_NEWEST_OF_EACH), sources | {"limit": limit})
    async for rows in found.partitions(_PARTITION):
        yield [_recorded(row) for row in rows]


async def said_by(
    connection: AsyncConnection, account_id: UUID, call_id: UUID, after: datetime
) -> Said:
    """Return what an account has said after a moment, and of one of its calls."""
    given = evidence.c
    of_call = given.call_id == call_id
    query = select(
        func.count().label("words"),
        func.count(given.call_id.distinct()).filter(~of_call).label("others"),
        func.min(given.weight).filter(of_call).label("weight"),
    ).where(given.account_id == account_id, given.at > after, given.source == Source.FEEDBACK.value)
    row = (await connection.execute(query)).one()
    return Said(row.words, row.others, row.weight)


async def take_turn(connection: AsyncConnection, account_id: UUID) -> None:
    """Wait until no other transaction has the turn of this account; held until the end of this."""
    lock = text("SELECT pg_advisory_xact_lock(hashtextextended('evidence/' || :account, 0))")
    await connection.execute(lock, {"account": str(account_id)})


def _recorded(row: Row[Any]) -> Recorded:
    values = {name: getattr(row, name) for name in _COLUMNS}
    values["source"], values["grade"] = Source(row.source), Grade(row.grade)
    values["compared"] = None if row.compared is None else Other(row.compared)
    return Recorded(row.id, Piece(**values))


_OF_EACH: Final = """
FROM endpoints e CROSS JOIN unnest(CAST(:sources AS text[])) AS s (source)
CROSS JOIN LATERAL (
    SELECT * FROM evidence WHERE endpoint_id = e.id AND source = s.source
    ORDER BY id DESC LIMIT :limit) newest
WHERE e.retired_at IS NULL OR e.retired_at > now() - interval '30 days'
"""
_COUNTS: Final = f"SELECT count(*) {_OF_EACH} GROUP BY e.id, s.source"
_NEWEST_OF_EACH: Final = f"SELECT newest.* {_OF_EACH} ORDER BY newest.id"

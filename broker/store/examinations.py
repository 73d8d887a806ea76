"""Examinations of endpoints: ordered, taken up by a worker, on their way, and what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import insert, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.store.tables import table

examinations = table(
    "examinations",
    """
    id uuid, endpoint_id uuid, domain text, suite_at timestamptz, author text, status text,
    asked integer, answered integer, scored integer, score double, problem text,
    created_at timestamptz, taken_until timestamptz, started_at timestamptz, ended_at timestamptz
    """,
)
test_calls = table("test_calls", "id uuid, endpoint_id uuid, at timestamptz")

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
ORDERED_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class Order:
    """An endpoint that is to be examined on the suite of a domain."""

    id: UUID
    endpoint_id: UUID
    domain: str


@dataclass(frozen=True, slots=True)
class Claim:
    """That an endpoint is good at a domain for which there is a suite."""

    endpoint_id: UUID
    domain: str
    suite_at: datetime


@dataclass(frozen=True, slots=True)
class Examination:
    """An examination as it stands; `claimed` is the quality that the endpoint declares today."""

    id: UUID
    endpoint_id: UUID
    endpoint: str
    domain: str
    author: str
    status: str
    asked: int
    answered: int
    scored: int | None
    score: float | None
    claimed: float | None
    problem: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


async def unexamined(connection: AsyncConnection) -> list[Claim]:
    """Return claims of listed endpoints whose suite, as it stands, they have never been put to."""
    rows = await connection.execute(text(_UNEXAMINED), {"limit": ORDERED_AT_ONCE})
    return [Claim(row.endpoint_id, row.domain, row.suite_at) for row in rows]


async def claims_of(
    connection: AsyncConnection, name: str, provider_id: UUID | None
) -> tuple[UUID, list[str]] | None:
    """Return id and claimed domains of `provider/endpoint` where it is on the market.

    With `provider_id`, another's is not found.
    """
    row = (
        await connection.execute(text(_CLAIMS_OF), {"name": name, "provider": provider_id})
    ).first()
    return None if row is None else (row.id, sorted(row.domains))


async def order(
    connection: AsyncConnection, claims: Sequence[Claim], author: str, now: datetime
) -> list[Order]:
    """Order examinations; one that is open already is not ordered again. Returns the new ones."""
    if not claims:
        return []
    rows = [
        {
            "id": uuid7(),
            "endpoint_id": each.endpoint_id,
            "domain": each.domain,
            "suite_at": each.suite_at,
            "author": author,
            "created_at": now,
        }
        for each in claims
    ]
    made = await connection.execute(
        upsert(examinations)
        .values(rows)
        .on_conflict_do_nothing()
        .returning(examinations.c.id, examinations.c.endpoint_id, examinations.c.domain)
    )
    return [Order(row.id, row.endpoint_id, row.domain) for row in made]


async def take(
    connection: AsyncConnection, count: int, now: datetime, until: datetime
) -> list[Order]:
    """Take up to `count` open examinations that no worker has, to be had until then."""
    values = {"count": count, "now": now, "until": until}
    rows = await connection.execute(text(_TAKE), values)
    return [Order(row.id, row.endpoint_id, row.domain) for row in rows]


async def begin(connection: AsyncConnection, order_id: UUID, asked: int, now: datetime) -> None:
    """Write down how many prompts will be put; what a former worker had done is done anew."""
    await connection.execute(
        update(examinations)
        .where(examinations.c.id == order_id, examinations.c.ended_at.is_(None))
        .values(status=RUNNING, asked=asked, answered=0, started_at=now)
    )


async def proceed(
    connection: AsyncConnection, order_id: UUID, answered: int, until: datetime
) -> None:
    """Write down how far it is, and keep it."""
    await connection.execute(
        update(examinations)
        .where(examinations.c.id == order_id, examinations.c.ended_at.is_(None))
        .values(answered=answered, taken_until=until)
    )


async def end(
    connection: AsyncConnection,
    order_id: UUID,
    now: datetime,
    *,
    found: tuple[float, int] | None = None,
    problem: str | None = None,
) -> bool:
    """End it with (mean score, answers scored) or with a problem; False where it had ended."""
    values: dict[str, Any] = {"status": FAILED, "problem": problem}
    if found is not None:
        values = {"status": DONE, "score": found[0], "scored": found[1]}
    ended = await connection.execute(
        update(examinations)
        .where(examinations.c.id == order_id, examinations.c.ended_at.is_(None))
        .values(ended_at=now, taken_until=None, **values)
    )
    return ended.rowcount == 1


async def find(connection: AsyncConnection, order_id: UUID) -> Examination | None:
    """Return an examination."""
    query = text(f"{_SHOWN} WHERE x.id = :id")
    row = (await connection.execute(query, {"id": order_id})).mappings().first()
    return None if row is None else Examination(**row)


async def newest(
    connection: AsyncConnection, viewer: UUID | None, endpoint: str | None, limit: int
) -> list[Examination]:
    """Return the newest first, of one endpoint by its name or of all; None views everything.

    An account sees those of endpoints that it may see, and its own.
    """
    values = {"viewer": viewer, "endpoint": endpoint, "limit": limit}
    rows = await connection.execute(text(_NEWEST), values)
    return [Examination(**row) for row in rows.mappings()]


async def note_test_calls(
    connection: AsyncConnection, endpoint_id: UUID, ids: Sequence[UUID], now: datetime
) -> None:
    """Note calls that the broker is about to make for itself."""
    rows = [{"id": each, "endpoint_id": endpoint_id, "at": now} for each in ids]
    await connection.execute(insert(test_calls), rows)


async def without_test_calls(connection: AsyncConnection, ids: Sequence[UUID]) -> list[UUID]:
    """Return those of these calls that the broker did not make for itself, in their order."""
    query = test_calls.select().where(test_calls.c.id.in_(list(ids)))
    own = {row.id for row in await connection.execute(query)}
    return [each for each in ids if each not in own]


async def forget_test_calls(connection: AsyncConnection, before: datetime) -> None:
    """Forget the calls of long ago."""
    await connection.execute(test_calls.delete().where(test_calls.c.at < before))


_UNEXAMINED: Final = """
SELECT e.id AS endpoint_id, s.domain, s.changed_at AS suite_at
FROM suites s
JOIN offers o ON o.valid_to IS NULL AND o.domains ? s.domain
JOIN endpoints e ON e.id = o.endpoint_id AND e.retired_at IS NULL
    AND e.tasks && ARRAY['chat', 'completion']
JOIN deployments d ON d.id = e.deployment_id AND d.status = 'listed'
WHERE NOT EXISTS (
    SELECT FROM examinations x
    WHERE x.endpoint_id = e.id AND x.domain = s.domain AND x.suite_at >= s.changed_at)
ORDER BY e.id, s.domain LIMIT :limit
"""

_CLAIMS_OF: Final = """
SELECT e.id, o.domains FROM endpoints e
JOIN accounts a ON a.id = e.provider_id
JOIN offers o ON o.endpoint_id = e.id AND o.valid_to IS NULL
JOIN deployments d ON d.id = e.deployment_id AND d.status = 'listed'
WHERE e.retired_at IS NULL AND a.name || '/' || e.name = :name
    AND (CAST(:provider AS uuid) IS NULL OR e.provider_id = :provider)
"""

_TAKE: Final = """
UPDATE examinations SET taken_until = :until WHERE id IN (
    SELECT id FROM examinations
    WHERE ended_at IS NULL AND (taken_until IS NULL OR taken_until < :now)
    ORDER BY created_at, id LIMIT :count FOR UPDATE SKIP LOCKED)
RETURNING id, endpoint_id, domain
"""

_SHOWN: Final = """
SELECT x.id, x.endpoint_id, a.name || '/' || e.name AS endpoint, x.domain, x.author, x.status,
    x.asked, x.answered, x.scored, x.score, (o.domains ->> x.domain)::double precision AS claimed,
    x.problem, x.created_at, x.started_at, x.ended_at
FROM examinations x
JOIN endpoints e ON e.id = x.endpoint_id
JOIN accounts a ON a.id = e.provider_id
LEFT JOIN offers o ON o.endpoint_id = e.id AND o.valid_to IS NULL
"""

_NEWEST: Final = f"""{_SHOWN}
WHERE (CAST(:viewer AS uuid) IS NULL OR e.provider_id = :viewer OR (
        o.endpoint_id IS NOT NULL AND (o.visible_to IS NULL OR :viewer = ANY (o.visible_to))))
    AND (CAST(:endpoint AS text) IS NULL OR a.name || '/' || e.name = :endpoint)
ORDER BY x.id DESC LIMIT :limit
"""

"""Examinations of endpoints: ordered, taken up by a worker, on their way, and what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.core.answers.suites import Metric
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
ORDERED_A_DAY: Final = 24
"""Without anybody's asking for it, of one endpoint."""


@dataclass(frozen=True, slots=True)
class Order:
    """An endpoint that is to be examined on the suite of a domain."""

    id: UUID
    endpoint_id: UUID
    domain: str
    author: str


@dataclass(frozen=True, slots=True)
class Before:
    """How an endpoint has sat for a domain before."""

    failed: int
    """On the suite as it stands, by no score."""
    own: int
    """Lately and with a score, by the order of one author."""
    others: UUID | None
    """The last on the suite as it stands, with a score, that somebody else ordered."""


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


async def unexamined(connection: AsyncConnection, now: datetime) -> list[Claim]:
    """Return claims of listed endpoints that have no score on their suite as it stands.

    An examination without a score is due again after an hour, then six, then each 36, and no
    endpoint is examined more than ORDERED_A_DAY times.
    """
    values = {"now": now, "limit": ORDERED_AT_ONCE, "a_day": ORDERED_A_DAY}
    values |= {"embedded": _EMBEDDED, "tensors": _TENSORS}
    rows = await connection.execute(text(_UNEXAMINED), values)
    return [Claim(row.endpoint_id, row.domain, row.suite_at) for row in rows]


async def before(connection: AsyncConnection, order: Order, since: datetime) -> Before:
    """Return how the endpoint of an order has sat before; `own` is since a moment."""
    values = {"id": order.id, "since": since}
    row = (await connection.execute(text(_BEFORE), values)).one()
    return Before(row.failed, row.own, row.others)


async def ordered_by(
    connection: AsyncConnection, endpoint_id: UUID, author: str, since: datetime
) -> int:
    """Return how many examinations of an endpoint somebody ordered since a moment."""
    query = (
        select(func.count())
        .select_from(examinations)
        .where(examinations.c.endpoint_id == endpoint_id, examinations.c.author == author)
        .where(examinations.c.created_at > since)
    )
    return int((await connection.execute(query)).scalar_one())


async def claims_of(
    connection: AsyncConnection, name: str, provider_id: UUID | None
) -> tuple[UUID, UUID, list[str]] | None:
    """Return id, provider and claimed domains of `provider/endpoint` where it is on the market.

    With `provider_id`, another's is not found.
    """
    row = (
        await connection.execute(text(_CLAIMS_OF), {"name": name, "provider": provider_id})
    ).first()
    return None if row is None else (row.id, row.provider_id, sorted(row.domains))


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
    return [Order(row.id, row.endpoint_id, row.domain, author) for row in made]


async def take(
    connection: AsyncConnection, count: int, now: datetime, until: datetime
) -> list[Order]:
    """Take up to `count` open examinations that no worker has, to be had until then."""
    values = {"count": count, "now": now, "until": until}
    rows = await connection.execute(text(_TAKE), values)
    return [Order(row.id, row.endpoint_id, row.domain, row.author) for row in rows]


async def begin(connection: AsyncConnection, order_id: UUID, asked: int, now: datetime) -> None:
    """Write down how many prompts will be put; what a former worker had done is done anew."""
    await connection.execute(
        update(examinations)
        .where(examinations.c.id == order_id, examinations.c.ended_at.is_(None))
        .values(status=RUNNING, asked=asked, answered=0, started_at=now)
    )


async def keep(connection: AsyncConnection, order_id: UUID, until: datetime) -> None:
    """Keep it from other workers."""
    await connection.execute(
        update(examinations)
        .where(examinations.c.id == order_id, examinations.c.ended_at.is_(None))
        .values(taken_until=until)
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


_EMBEDDED: Final = b'"metric":"%b"' % Metric.CLOSER.encode()
"""It is in the rows of a suite for endpoints that embed,"""
_TENSORS: Final = b'"inputs":[{'
"""and this in those for endpoints that take tensors: within a text the marks would be escaped."""
_UNEXAMINED: Final = """
SELECT endpoint_id, domain, suite_at FROM (
SELECT e.id AS endpoint_id, s.domain, s.changed_at AS suite_at,
    today.count + row_number() OVER (PARTITION BY e.id ORDER BY s.domain) AS place
FROM suites s
JOIN offers o ON o.valid_to IS NULL AND o.domains ? s.domain
JOIN endpoints e ON e.id = o.endpoint_id AND e.retired_at IS NULL
    AND (e.tasks && ARRAY['chat', 'completion'] OR e.tasks && ARRAY['embedding']
        AND position(CAST(:embedded AS bytea) IN s.items) > 0
        OR e.tasks && ARRAY['infer'] AND position(CAST(:tensors AS bytea) IN s.items) > 0)
    AND (s.owner_id IS NULL OR s.owner_id = e.provider_id)
JOIN deployments d ON d.id = e.deployment_id AND d.status = 'listed'
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE x.status <> 'failed') AS sat,
        count(*) FILTER (WHERE x.status = 'failed') AS failed, max(x.ended_at) AS ended_at
    FROM examinations x
    WHERE x.endpoint_id = e.id AND x.domain = s.domain
        AND (x.suite_at >= s.changed_at OR x.ended_at IS NULL)) x
CROSS JOIN LATERAL (
    SELECT count(*) FROM examinations t WHERE t.endpoint_id = e.id
        AND t.created_at > CAST(:now AS timestamptz) - interval '1 day') today
WHERE x.sat = 0 AND (x.failed = 0 OR x.ended_at < CAST(:now AS timestamptz)
    - interval '1 hour' * power(6, least(x.failed, 3) - 1))
) due
WHERE place <= :a_day ORDER BY endpoint_id, domain LIMIT :limit
"""

_BEFORE: Final = """
SELECT
    count(*) FILTER (WHERE x.status = 'failed' AND x.asked > 0 AND x.suite_at >= o.suite_at)
        AS failed,
    count(*) FILTER (WHERE x.status = 'done' AND x.author = o.author AND x.ended_at > :since)
        AS own,
    (array_agg(x.id ORDER BY x.id DESC) FILTER (
        WHERE x.status = 'done' AND x.author <> o.author AND x.suite_at >= o.suite_at))[1] AS others
FROM examinations o
LEFT JOIN examinations x ON x.endpoint_id = o.endpoint_id AND x.domain = o.domain
WHERE o.id = :id
"""

_CLAIMS_OF: Final = """
SELECT e.id, e.provider_id, o.domains FROM endpoints e
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
RETURNING id, endpoint_id, domain, author
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

"""Canaries: which endpoints may get one, what came of them, and what traffic says beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.answers.gap import Tally
from broker.store.tables import table

canaries = table(
    "canaries",
    "id uuid, endpoint_id uuid, domain text, at timestamptz, score double",
)


@dataclass(frozen=True, slots=True)
class Perch:
    """An endpoint that was examined in a domain and has traffic."""

    endpoint_id: UUID
    domain: str


@dataclass(frozen=True, slots=True)
class Beside:
    """What canaries and traffic say of an endpoint in a domain."""

    endpoint: str
    domain: str
    canaries: Tally
    traffic: Tally
    """Feedback of right and wrong."""
    scaled: Tally
    """Feedback on a scale."""


async def perches(connection: AsyncConnection, busy_since: datetime) -> list[Perch]:
    """Return where a canary would be one call among others: a call came after `busy_since`."""
    rows = await connection.execute(text(_PERCHES), {"since": busy_since})
    return [Perch(row.endpoint_id, row.domain) for row in rows]


async def record(
    connection: AsyncConnection, canary: UUID, perch: Perch, score: float | None, at: datetime
) -> None:
    """Write down what came of a canary."""
    values = {"endpoint_id": perch.endpoint_id, "domain": perch.domain, "at": at, "score": score}
    await connection.execute(insert(canaries).values(id=canary, **values))


async def beside_traffic(
    connection: AsyncConnection,
    span: tuple[datetime, datetime],
    limit: int,
    *,
    endpoint_id: UUID | None = None,
    domains: Sequence[str] | None = None,
) -> list[Beside]:
    """Return canaries beside feedback, of endpoints in force, after a moment and until another.

    Of one endpoint, or of those in some domains, where these are named.

    Words weigh as they do as evidence, a flood of them little; of several on one call the last
    counts. Checks of form are left out: they say nothing of who is right, as canaries do.
    """
    values: dict[str, Any] = {"since": span[0], "until": span[1], "limit": limit}
    only = ""  # each its own text, so that an index serves it
    if endpoint_id is not None:
        only, values["endpoint"] = "AND endpoint_id = :endpoint", endpoint_id
    if domains is not None:
        only, values["domains"] = f"{only} AND domain = ANY(:domains)", list(domains)
    rows = await connection.execute(text(_BESIDE.replace("/* only */", only)), values)
    return [
        Beside(
            row.endpoint,
            row.domain,
            Tally(row.own_count, row.own_total, row.own_squares),
            Tally(row.told_count, row.told_total, row.told_squares),
            Tally(row.scaled_count, row.scaled_total, row.scaled_squares),
        )
        for row in rows
    ]


_PERCHES: Final = """
SELECT x.endpoint_id, x.domain FROM (
    SELECT DISTINCT endpoint_id, domain FROM examinations WHERE ended_at IS NOT NULL) x
JOIN endpoints e ON e.id = x.endpoint_id AND e.retired_at IS NULL
JOIN suites s ON s.domain = x.domain AND (s.owner_id IS NULL OR s.owner_id = e.provider_id)
JOIN deployments d ON d.id = e.deployment_id AND d.status = 'listed'
WHERE (SELECT c.created_at FROM calls c WHERE c.endpoint_number = e.number
       ORDER BY c.id DESC LIMIT 1) > :since
ORDER BY x.endpoint_id, x.domain
"""

_BESIDE: Final = """
SELECT a.name || '/' || e.name AS endpoint, own.domain,
    own.count AS own_count, own.total AS own_total, own.squares AS own_squares,
    told.count AS told_count, told.total AS told_total, told.squares AS told_squares,
    told.scaled_count, told.scaled_total, told.scaled_squares
FROM (
    SELECT endpoint_id, domain, count(score) AS count, coalesce(sum(score), 0) AS total,
        coalesce(sum(score * score), 0) AS squares
    FROM canaries WHERE at > :since AND at <= :until /* only */
    GROUP BY endpoint_id, domain) own
JOIN endpoints e ON e.id = own.endpoint_id AND e.retired_at IS NULL
JOIN accounts a ON a.id = e.provider_id
CROSS JOIN LATERAL (
    SELECT coalesce(sum(weight) FILTER (WHERE grade = 'binary'), 0) AS count,
        coalesce(sum(weight * score) FILTER (WHERE grade = 'binary'), 0) AS total,
        coalesce(sum(weight * score * score) FILTER (WHERE grade = 'binary'), 0) AS squares,
        coalesce(sum(weight) FILTER (WHERE grade = 'graded'), 0) AS scaled_count,
        coalesce(sum(weight * score) FILTER (WHERE grade = 'graded'), 0) AS scaled_total,
        coalesce(sum(weight * score * score) FILTER (WHERE grade = 'graded'), 0) AS scaled_squares
    FROM (
        SELECT DISTINCT ON (coalesce(call_id, id)) score, weight, grade FROM evidence
        WHERE endpoint_id = own.endpoint_id AND at > :since AND at <= :until
            AND source = 'feedback' AND (domain IS NULL OR domain = own.domain)
        ORDER BY coalesce(call_id, id), id DESC) last) told
ORDER BY endpoint, own.domain LIMIT :limit
"""

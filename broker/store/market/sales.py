"""What endpoints sold and at which price, by periods of equal length: for price advice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.money.plans import id_at
from pricing.book import Rate

_READS_WITHIN_MS = 20_000
_ID_EARLIER = timedelta(minutes=1)

# A call's id begins with the time of its admission, and so goes the index of an endpoint's calls.
_SOLD = """
SELECT floor(extract(epoch FROM created_at) / :period_s)::bigint AS period,
       count(*) AS calls, sum(tokens_in)::bigint AS tokens_in,
       sum(tokens_out)::bigint AS tokens_out, sum(duration_ms)::double precision AS duration_ms
  FROM calls
 WHERE endpoint_number = ANY(:numbers) AND created_at >= :since AND created_at < :until
   AND id >= :first AND status = 200
 GROUP BY 1 ORDER BY 1
"""
_PRICED = """
SELECT DISTINCT ON (1) floor(extract(epoch FROM at) / :period_s)::bigint AS period,
       rate_in_micros, rate_out_micros, rate_call_nanos
  FROM price_changes
 WHERE endpoint_number = ANY(:numbers) AND at >= :since AND at < :until
 ORDER BY 1, at DESC, version DESC
"""


@dataclass(frozen=True, slots=True)
class Sold:
    """One period's calls that were served; `period` counts from the Unix epoch."""

    period: int
    calls: int
    tokens_in: int
    tokens_out: int
    duration_ms: float
    """Of all calls together."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """From `since` on and before `until`, in periods of `period_s`."""

    since: datetime
    until: datetime
    period_s: int


async def sold_by_period(
    connection: AsyncConnection, numbers: Sequence[int], stretch: Stretch
) -> list[Sold]:
    """Return the periods in which these endpoints sold anything, in their order."""
    # Of a busy endpoint it may be millions of rows: rather no advice than a database held up.
    await connection.execute(text(f"SET LOCAL statement_timeout = {_READS_WITHIN_MS}"))
    told = _told(numbers, stretch) | {"first": id_at(stretch.since - _ID_EARLIER)}
    rows = await connection.execute(text(_SOLD), told)
    return [Sold(**row) for row in rows.mappings()]


async def last_rates_by_period(
    connection: AsyncConnection, numbers: Sequence[int], stretch: Stretch
) -> dict[int, Rate]:
    """Return the rate at the end of each period in which it changed."""
    rows = await connection.execute(text(_PRICED), _told(numbers, stretch))
    return {
        row.period: Rate(row.rate_in_micros, row.rate_out_micros, row.rate_call_nanos)
        for row in rows
    }


def _told(numbers: Sequence[int], stretch: Stretch) -> dict[str, object]:
    return {
        "numbers": list(numbers),
        "since": stretch.since,
        "until": stretch.until,
        "period_s": stretch.period_s,
    }

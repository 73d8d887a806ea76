"""What of a provider's earnings has been sealed and waits, what it is known for, what is disputed.

Nothing here sums the lines of calls: a seal has summed them, so what matures is what stood in the
purse at the seal, less what has left it since on account of calls before the seal.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Select, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.money.maturity import MaturityTerms, Track
from broker.store.money.purses import Purses
from broker.store.money.recourse import maturities
from broker.store.tables import table

_pending = table(
    "pending_at_seals", "ledger_account_id uuid, sealed_before timestamptz, pending_nanos bigint"
)

# The lines that paid a provider come from an index alone, and no more of them than are asked for:
# those of one call, at most four, are of one time.
_TRACK = text("""
SELECT a.created_at, t.delay_days,
       (SELECT least(count(DISTINCT paid.settled_at), :enough) FROM (
            SELECT l.settled_at FROM settlement_lines l
             WHERE l.payee_id = (SELECT id FROM ledger_accounts
                                  WHERE owner_id = a.id AND kind = 'earnings' AND shard = 0)
             LIMIT 4 * :enough) paid) AS calls,
       (SELECT count(*) FROM dispute_parts p JOIN disputes d ON d.id = p.dispute_id
         WHERE p.provider_id = a.id AND d.closed_at >= :since
           AND (p.answer = 'overdue' OR (p.answer = 'contested' AND d.verdict = 'upheld'))) AS lost
  FROM accounts a LEFT JOIN payout_terms t ON t.provider_id = a.id
 WHERE a.id = :provider
""")

_DISPUTED = text("""
SELECT coalesce(sum(greatest(0, least(
           p.asked_nanos - p.refunded_nanos, l.earnings_nanos - coalesce(b.earnings_nanos, 0)
       ))), 0)::bigint
  FROM dispute_parts p
  JOIN disputes d ON d.id = p.dispute_id AND d.status IN ('open', 'contested')
 CROSS JOIN LATERAL (SELECT coalesce(sum(earnings_nanos), 0) AS earnings_nanos FROM settlement_lines
                      WHERE call_id = d.call_id AND payee_id = :earnings
                        AND settled_at < :matured_before) l
 CROSS JOIN LATERAL (SELECT sum(x.earnings_nanos) AS earnings_nanos
                       FROM credit_notes n JOIN credit_note_lines x ON x.credit_note_id = n.id
                      WHERE n.call_id = d.call_id AND x.provider_id = p.provider_id) b
 WHERE p.provider_id = :provider
""")

_WAITING = text("""
SELECT p.provider_id
  FROM provider_purses p
  JOIN balances e ON e.ledger_account_id = p.earnings_id
  JOIN balances a ON a.ledger_account_id = p.available_id
  JOIN balances r ON r.ledger_account_id = p.receivable_id
 WHERE e.posted_nanos > 0 OR (a.posted_nanos > 0 AND r.posted_nanos < 0)
 ORDER BY p.provider_id
""")


@dataclass(frozen=True, slots=True)
class Sealed:
    """What was earned before a seal and is still pending, nano-dollars."""

    sealed_before: datetime
    pending_nanos: int


async def waiting(connection: AsyncConnection) -> list[UUID]:
    """Return the providers that have something to mature or to pay back."""
    return list((await connection.execute(_WAITING)).scalars())


async def sealed_until(
    connection: AsyncConnection, earnings: UUID, until: datetime
) -> Sealed | None:
    """Return a purse as of the last seal at or before `until`, None before its first."""
    at = _pending.c.sealed_before
    query = _seals_of(earnings).where(at <= until).order_by(at.desc()).limit(1)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else Sealed(row.sealed_before, row.pending_nanos)


async def sealed_after(
    connection: AsyncConnection, earnings: UUID, watermark: datetime | None
) -> list[Sealed]:
    """Return a purse as of each seal after the watermark, oldest first."""
    at = _pending.c.sealed_before
    query = _seals_of(earnings).order_by(at)
    if watermark is not None:
        query = query.where(at > watermark)
    rows = await connection.execute(query)
    return [Sealed(row.sealed_before, row.pending_nanos) for row in rows]


async def set_watermark(
    connection: AsyncConnection, provider_id: UUID, matured_before: datetime
) -> None:
    """Note that all of a provider's lines settled before this moment have matured."""
    fresh = insert(maturities).values(provider_id=provider_id, matured_before=matured_before)
    await connection.execute(
        fresh.on_conflict_do_update(
            index_elements=["provider_id"], set_={"matured_before": matured_before}
        )
    )


async def read_track(
    connection: AsyncConnection, provider_id: UUID, terms: MaturityTerms, now: datetime
) -> Track:
    """Return what is known of a provider."""
    values = {
        "provider": provider_id,
        "enough": terms.trusted_after_calls,
        "since": now - timedelta(days=terms.blemish_days),
    }
    row = (await connection.execute(_TRACK, values)).one()
    return Track((now - row.created_at).days, row.calls, row.lost, row.delay_days)


async def disputed_nanos(
    connection: AsyncConnection, purses: Purses, watermark: datetime | None
) -> int:
    """Return what matured from calls that are disputed now, and may have to go back."""
    if watermark is None:
        return 0
    values = {
        "provider": purses.provider_id,
        "earnings": purses.earnings,
        "matured_before": watermark,
    }
    return int(await connection.scalar(_DISPUTED, values) or 0)


def _seals_of(earnings: UUID) -> Select[tuple[datetime, int]]:
    columns = (_pending.c.sealed_before, _pending.c.pending_nanos)
    return select(*columns).where(_pending.c.ledger_account_id == earnings)

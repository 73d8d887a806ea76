"""Queues for webhooks what has happened: each event and each settled call once, and none missed.

**Events.** Transactions commit in another order than that of their numbers. What is told by those
older than the oldest one under way is complete. Each round queues all that is visible from the last
such horizon on (a webhook has each event once, by its primary key), then moves the horizon. An
event that follows another of its object was written after that one's commit, so whoever sees it
sees that one too, and queues them in order.

**Settled calls** are no rows of `events`: they are found in their settlements' lines by the ids of
calls, which rise with the time of admission. A call that settles later than a round was at that
round either open, then it is remembered by its id, or not yet held, then its id is not older than
`OVERLAP`. Should it be, for a clock was wrong or its hold waited long, the look back finds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.money.plans import id_at

OVERLAP: Final = timedelta(seconds=15)
LOOKS_BACK: Final = timedelta(minutes=70)
"""A call is settled within so long of its admission, and a little more."""
LOOKS_BACK_EVERY: Final = timedelta(minutes=5)
REPLAYED_MAX: Final = 10_000
"""Events, and settled calls, queued by one replay."""

_LAST_ID: Final = UUID(int=2**128 - 1)
_COLUMNS = "webhook_id, event_id, kind, object, place, at, state, queued_at, due_at"
_WANTS = """
    (e.kind = ANY(w.kinds) OR '*' = ANY(w.kinds)
     OR split_part(e.kind, '.', 1) || '.*' = ANY(w.kinds))"""
_MAY_SEE = "(a.role = 'operator' OR a.id = e.account_id)"
_AGAIN = """
ON CONFLICT (webhook_id, event_id) DO UPDATE
   SET state = 'waiting', attempts = 0, queued_at = excluded.queued_at, due_at = excluded.due_at,
       status = NULL, fault = NULL, detail = NULL
RETURNING at
"""

_CLAIM = """
SELECT calls_from, stragglers, looked_back_at FROM webhook_progress FOR UPDATE SKIP LOCKED
"""
_HORIZON = """
SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xid, coalesce(max(number), 0) AS seen FROM events
"""
_EVENTS = f"""
INSERT INTO webhook_deliveries ({_COLUMNS})
SELECT w.id, e.id, e.kind, e.object, e.number, e.at, 'waiting',
       CAST(:now AS timestamptz), CAST(:now AS timestamptz)
  FROM webhook_progress p
  JOIN events e ON e.xid >= p.events_from AND e.number > p.events_after
  JOIN webhooks w ON w.status = 'enabled' AND e.at >= w.told_from AND {_WANTS}
  JOIN accounts a ON a.id = w.account_id AND a.closed_at IS NULL AND {_MAY_SEE}
 ORDER BY e.number FOR KEY SHARE OF w
ON CONFLICT DO NOTHING
"""  # noqa: S608 - of constants
# A horizon behind the last one is another server's: a backup was restored. From then on the numbers
# of events tell which are new.
_MOVE_HORIZON = """
UPDATE webhook_progress
   SET events_from = CASE WHEN h.restored THEN '0' ELSE h.xid END,
       events_after = CASE WHEN h.restored THEN events_seen ELSE events_after END,
       events_seen = :seen
  FROM (SELECT CAST(:xid AS xid8) AS xid, CAST(:xid AS xid8) < events_from AS restored
          FROM webhook_progress) AS h
"""
_WATCHED = """
SELECT count(*) FROM webhooks
 WHERE status = 'enabled' AND ('call.settled' = ANY(kinds) OR 'call.*' = ANY(kinds))
"""
# A line concerns who pays, who is paid, and operators, who stand here as the account of zeros.
_SIDES = """
  CROSS JOIN LATERAL (VALUES (l.payer_id), (l.payee_id),
                             (CAST('00000000-0000-0000-0000-000000000000' AS uuid))) AS s (side)
  JOIN (SELECT h.id, h.told_from, h.status, h.kinds,
               coalesce(g.id, CAST('00000000-0000-0000-0000-000000000000' AS uuid)) AS side
          FROM webhooks h
          JOIN accounts a ON a.id = h.account_id AND a.closed_at IS NULL
          LEFT JOIN ledger_accounts g ON g.owner_id = a.id AND g.kind IN ('funds', 'earnings')
         WHERE a.role = 'operator' OR g.id IS NOT NULL) AS w ON w.side = s.side"""
_SETTLED = f"""
INSERT INTO webhook_deliveries ({_COLUMNS})
SELECT DISTINCT ON (w.id, l.call_id)
       w.id, l.call_id, 'call.settled', 'calls/' || l.call_id, 0, l.settled_at, 'waiting',
       CAST(:now AS timestamptz), CAST(:now AS timestamptz)
  FROM settlement_lines l {_SIDES}
 WHERE w.status = 'enabled' AND ('call.settled' = ANY(w.kinds) OR 'call.*' = ANY(w.kinds))
   AND (l.call_id >= :first OR l.call_id = ANY(:stragglers)) AND l.settled_at >= w.told_from
ON CONFLICT DO NOTHING
"""  # noqa: S608
_OPEN = "SELECT call_id FROM open_holds WHERE call_id < :first"
_MOVE_CALLS = """
UPDATE webhook_progress
   SET calls_from = :first, stragglers = CAST(:stragglers AS uuid[]), looked_back_at = :looked_back
"""

_REPLAY_EVENTS = f"""
INSERT INTO webhook_deliveries ({_COLUMNS})
SELECT w.id, e.id, e.kind, e.object, e.number, e.at, 'waiting',
       CAST(:now AS timestamptz), CAST(:now AS timestamptz)
  FROM events e
  JOIN webhooks w ON w.id = :webhook
  JOIN accounts a ON a.id = w.account_id AND {_MAY_SEE}
 WHERE (e.id = CAST(:event AS uuid) OR (CAST(:event AS uuid) IS NULL AND {_WANTS}))
   AND e.at >= :since
 ORDER BY e.at, e.number LIMIT :most
{_AGAIN}"""  # noqa: S608
_REPLAY_SETTLED = f"""
INSERT INTO webhook_deliveries ({_COLUMNS})
SELECT w.id, l.call_id, 'call.settled', 'calls/' || l.call_id, 0, min(l.settled_at), 'waiting',
       CAST(:now AS timestamptz), CAST(:now AS timestamptz)
  FROM settlement_lines l {_SIDES}
 WHERE w.id = :webhook AND l.call_id BETWEEN :first AND :last AND l.settled_at >= :since
   AND (l.call_id = CAST(:event AS uuid) OR (CAST(:event AS uuid) IS NULL
        AND ('call.settled' = ANY(w.kinds) OR 'call.*' = ANY(w.kinds))))
 GROUP BY w.id, l.call_id ORDER BY min(l.settled_at) LIMIT :most
{_AGAIN}"""  # noqa: S608


async def queue(connection: AsyncConnection, now: datetime) -> bool:
    """Queue what has happened since the last round; False when another process is at it."""
    progress = (await connection.execute(text(_CLAIM))).one_or_none()
    if progress is None:
        return False
    # Read once the row is ours, so that it is never behind what another process has left there.
    horizon = (await connection.execute(text(_HORIZON))).one()
    await connection.execute(text(_EVENTS), {"now": now})
    moved_to = {"xid": horizon.xid, "seen": horizon.seen}
    await connection.execute(text(_MOVE_HORIZON), moved_to)
    looks_back = now >= progress.looked_back_at + LOOKS_BACK_EVERY
    stragglers: list[UUID] = []
    next_from = id_at(now - OVERLAP)
    if await connection.scalar(text(_WATCHED)):
        # First what is open, then what is settled: nothing can pass between the two unseen.
        rows = await connection.execute(text(_OPEN), {"first": next_from})
        stragglers = list(rows.scalars())
        first = progress.calls_from
        if looks_back:
            first = min(first, id_at(progress.looked_back_at - LOOKS_BACK))
        found = {"now": now, "first": first, "stragglers": list(progress.stragglers)}
        await connection.execute(text(_SETTLED), found)
    moved = {
        "first": next_from,
        "stragglers": stragglers,
        "looked_back": now if looks_back else progress.looked_back_at,
    }
    await connection.execute(text(_MOVE_CALLS), moved)
    return True


@dataclass(frozen=True, slots=True)
class Requeued:
    """How many events were queued; where there were too many, the rest begin at `goes_on_at`."""

    events: int
    goes_on_at: datetime | None


async def replay(
    connection: AsyncConnection,
    webhook_id: UUID,
    event_id: UUID | None,
    since: datetime,
    now: datetime,
) -> Requeued:
    """Queue one event, or all that the webhook wants from `since` on, once more."""
    wanted = {"webhook": webhook_id, "event": event_id, "since": since, "now": now}
    bound = wanted | {"most": REPLAYED_MAX}
    told = (await connection.execute(text(_REPLAY_EVENTS), bound)).scalars().all()
    bound |= {"first": event_id or id_at(since - LOOKS_BACK), "last": event_id or _LAST_ID}
    settled = (await connection.execute(text(_REPLAY_SETTLED), bound)).scalars().all()
    cut = [max(each) for each in (told, settled) if len(each) >= REPLAYED_MAX]
    return Requeued(len(told) + len(settled), min(cut, default=None))

"""Groups the holds and settlements of many calls into few commits.

A hold returns when it is durable, or raises; a settlement is kept and tried until its outcome is
known. Both outlive their caller: a hold that nobody waits for any more is released, a settlement
that nobody waits for is still made.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID

import asyncpg

from broker.core.ledger import CallRecord, Hold, Settlement
from broker.flows.books.lane import Lane
from broker.flows.books.lane_ahead import AheadLane, HoldTerms, Neighbours
from broker.flows.books.lane_doubts import DoubtLane
from broker.flows.books.lane_holds import HoldLane
from broker.flows.books.lane_settlements import RecordLane, SettlementLane
from broker.flows.process.outage import ledger_outage
from broker.store.books.budgeted_keys import BudgetedKeys


class LedgerBatcher:
    """The books as one process sees them. `start` before, `drain` after.

    Each of the lanes keeps one connection of `pool`; that of doubts only while it has some.
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        take_account: UUID,
        terms: HoldTerms,
    ) -> None:
        self.process_id = terms.process_id
        rows_max, known = terms.rows_max, BudgetedKeys()
        self._settlements = SettlementLane(pool, rows_max, take_account, known)
        self.turnover = self._settlements.turnover
        """What the calls of this process came to."""
        self._records = RecordLane(pool, rows_max, self.turnover)
        self.outage = ledger_outage("beside")
        """Of what calls ask of the database beside the lanes."""
        self._doubts = DoubtLane(pool, rows_max, self._settlements)
        beside = Neighbours(self._settlements, self._doubts, known)
        self.ahead = AheadLane(pool, terms, beside)
        """Of holds that are ready before their calls have come."""
        self._holds = HoldLane(pool, terms, beside, self.ahead)

    def start(self) -> None:
        """Begin to send batches."""
        self._records.start()
        self._settlements.start()
        self._doubts.start()
        self.ahead.start()
        self._holds.start()

    async def drain(self, timeout_s: float = 10.0) -> None:
        """Take no new hold, write all that waits, and let go of the connections.

        What is not written after `timeout_s` is told in the log and lost: its callers never saw
        the end of their calls, and its holds are released once this process is found dead.
        """
        due_s = time.monotonic() + timeout_s
        for lane in (self._holds, self.ahead, self._doubts, self._settlements, self._records):
            await lane.close(max(due_s - time.monotonic(), 0.0))

    def lanes(self) -> dict[str, Lane[Any, Any]]:
        """Return the lanes by name, to be looked at."""
        return {
            "holds": self._holds,
            "ahead": self.ahead,
            "doubts": self._doubts,
            "settlements": self._settlements,
            "records": self._records,
        }

    @property
    def is_stuck(self) -> bool:
        """True while settlements cannot be written, or where a lane has died; no call is let in."""
        died = any(each.has_died for each in self.lanes().values())
        return died or self._settlements.is_stuck

    @property
    def holds_limit(self) -> float:
        """How many calls may wait for their hold, by how long the ledger takes."""
        return self._holds.limit

    def hold(
        self, hold: Hold, wait_s: float = 0.0, share: float = 1.0
    ) -> Coroutine[Any, Any, None]:
        """Reserve `hold.amount_nanos`; durable when this returns.

        Where only open holds keep it out of a budget, it waits up to `wait_s` for their end. Raises
        BalanceTooLow, BudgetTooLow, TooManyCalls when too much waits already for the `share` of the
        limit that such a call may find taken, Unavailable when the
        database is away, Conflict for a call that has a hold, and BrokerError when the ledger
        account does not exist.
        """
        # One coroutine fewer than awaiting it here, for every call.
        return self._holds.hold(hold, wait_s, share)

    def release(self, hold: Hold) -> None:
        """Close, soon, a hold that no call goes on with."""
        self._settlements.release(hold)

    def settle(
        self, settlement: Settlement, draft: Callable[[], CallRecord] | None = None
    ) -> asyncio.Future[bool]:
        """Capture or release; durable when it is done. False when the hold was gone already.

        `draft` makes the record of the call once its batch is sent, and records of many calls one
        after the other: then their code is in the processor's caches, which it hardly is by itself.
        Goes on when the caller is cancelled, and while the database is away. Raises BrokerError
        when the books refuse it: a missing account, lines that do not sum to the charge.
        """
        return self._settlements.settle(settlement, draft)

    def record(self, record: CallRecord) -> None:
        """Write, soon, the record of a call that had no hold; dropped when too many wait."""
        self._records.record(record)

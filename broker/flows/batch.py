"""Groups the holds and settlements of many calls into few commits.

A hold returns when it is durable, or raises; a settlement is kept and tried until its outcome is
known. Both outlive their caller: a hold that nobody waits for any more is released, a settlement
that nobody waits for is still made.
"""

from __future__ import annotations

from uuid import UUID

import asyncpg

from broker.core.ledger import CallRecord, Hold, Settlement
from broker.errors import TooManyCalls, Unavailable
from broker.flows.lane_holds import HoldLane
from broker.flows.lane_settlements import RecordLane, SettlementLane


class LedgerBatcher:
    """The books as one process sees them. `start` before, `drain` after.

    Each of the three lanes keeps one connection of `pool`.
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        take_account: UUID,
        process_id: int,
        rows_max: int = 512,
        queue_max: int = 10_000,
    ) -> None:
        self._records = RecordLane(pool, rows_max)
        self._settlements = SettlementLane(pool, rows_max, take_account)
        self._holds = HoldLane(pool, rows_max, process_id, self._settlements)
        self._queue_max = queue_max
        self._draining = False

    def start(self) -> None:
        """Begin to send batches."""
        self._records.start()
        self._settlements.start()
        self._holds.start()

    async def drain(self, timeout_s: float = 10.0) -> None:
        """Take no new hold, write all that waits, and let go of the connections."""
        self._draining = True
        await self._holds.close(timeout_s)
        await self._settlements.close(timeout_s)
        await self._records.close(timeout_s)

    async def hold(self, hold: Hold) -> None:
        """Reserve `hold.amount_nanos`; durable when this returns.

        Raises BalanceTooLow, TooManyCalls when too much waits already, Unavailable when the
        database is away, Conflict for a call that has a hold, and BrokerError when the ledger
        account does not exist.
        """
        if self._draining:
            raise Unavailable("The broker is stopping.", retry_after_s=1.0)
        if max(len(self._holds.queue), len(self._settlements.queue)) >= self._queue_max:
            raise TooManyCalls("Too many calls wait for the ledger.", retry_after_s=1.0)
        await self._holds.hold(hold)

    async def settle(self, settlement: Settlement) -> bool:
        """Capture or release; durable when this returns. False when the hold was gone already.

        Goes on when the caller is cancelled, and while the database is away. Raises BrokerError
        when the books refuse it: a missing account, lines that do not sum to the charge.
        """
        return await self._settlements.settle(settlement)

    def record(self, record: CallRecord) -> None:
        """Write, soon, the record of a call that had no hold; dropped when too many wait."""
        self._records.record(record)

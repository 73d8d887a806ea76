"""The lane of holds of unknown fate: the connection broke while their statement ran.

PostgreSQL may run such a statement on and commit it long after its caller was refused, as when it
waited for a lock or for the disk. So what has not committed is kept from it for good, and what has
is released: nobody's money waits for the hold to expire.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

import asyncpg
import structlog

from broker.core.ledger import Hold
from broker.errors import Unavailable
from broker.flows.books.lane import BackOff, Lane
from broker.flows.books.lane_settlements import SettlementLane
from broker.store import ledger

_STATEMENT_S: Final = 5.0
_PATIENCE_S: Final = _STATEMENT_S / 2
"""With who is just opening a hold; the server ends the wait, before it is cut off here."""

_log = structlog.get_logger()


class DoubtLane(Lane[Hold, bool]):
    """Holds of one process that may be open, and whose callers were refused."""

    def __init__(self, pool: asyncpg.Pool, rows_max: int, settlements: SettlementLane) -> None:
        super().__init__(pool, rows_max, _STATEMENT_S)
        self._settlements = settlements
        self._back_off = BackOff()

    async def _work(self) -> None:
        batch = [self.queue.popleft() for _ in range(min(len(self.queue), self._rows_max))]
        try:
            await self._execute(batch)
            self._back_off.reset()
        except Exception as error:
            # What is there by then is released once: whoever comes second finds the hold gone.
            self.queue.extendleft(reversed(batch))
            self.outage.met(error, doubts=len(self.queue))
            await self._back_off.sleep()
        if not self.queue:
            await self._drop()

    async def _send(self, connection: ledger.Connection, items: Sequence[Hold]) -> Sequence[bool]:
        there = await ledger.forestall(connection, items, _PATIENCE_S)
        return [each.call_id in there for each in items]

    def _deliver(self, items: Sequence[Hold], results: Sequence[bool]) -> None:
        for hold, there in zip(items, results, strict=True):
            if there:
                with contextlib.suppress(Unavailable):
                    self._settlements.release(hold)

    async def _offend(self, item: Hold, error: Exception) -> None:
        _log.error("hold_in_doubt", call_id=str(item.call_id), error=repr(error))

    def _abandon(self) -> None:
        """They are released once this process is found dead."""
        if self.queue:
            _log.warning("holds_in_doubt", holds=len(self.queue))
        self.queue.clear()

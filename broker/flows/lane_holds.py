"""The lane of holds: refuses fast when the database is away; leaves no hold without an owner."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg
import structlog

from broker.core.ledger import Hold
from broker.errors import BalanceTooLow, BrokerError, Conflict, TooManyCalls, Unavailable
from broker.flows.lane import Lane
from broker.flows.lane_settlements import SettlementLane
from broker.store import ledger
from broker.store.ledger import HoldResult
from pricing.money import format_usd

_STATEMENT_S: Final = 5.0
_AWAY_S: Final = 1.0
"""After a failure, holds are refused at once for this long."""

_HOLD_NANOS_MAX: Final = 2**63 - 1
"""More does not fit a BIGINT, and would break the statement for the holds beside it."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class HoldTerms:
    """Whose holds these are, how many go into a statement, and how many may wait."""

    process_id: int
    rows_max: int
    queue_max: int


class _Asked:
    __slots__ = ("future", "hold", "sent")

    def __init__(self, hold: Hold, future: asyncio.Future[None]) -> None:
        self.hold = hold
        self.future = future
        self.sent = False
        """A statement with it is under way, or its fate is unknown."""


class HoldLane(Lane[_Asked, HoldResult]):
    """Holds of one process; what nobody waits for any more goes to `settlements` for release."""

    def __init__(self, pool: asyncpg.Pool, terms: HoldTerms, settlements: SettlementLane) -> None:
        super().__init__(pool, terms.rows_max, _STATEMENT_S)
        self._process_id = terms.process_id
        self._queue_max = terms.queue_max
        self._settlements = settlements
        self._away_until_s = 0.0

    async def hold(self, hold: Hold) -> None:
        """Wait until the hold is durable. Raises as `LedgerBatcher.hold` says."""
        if self._closing:
            raise Unavailable("The broker is stopping.", retry_after_s=_AWAY_S)
        if max(len(self.queue), len(self._settlements.queue)) >= self._queue_max:
            raise TooManyCalls("Too many calls wait for the ledger.", retry_after_s=_AWAY_S)
        if hold.amount_nanos > _HOLD_NANOS_MAX:
            raise _beyond_all(hold)
        loop = asyncio.get_running_loop()
        if self._away_until_s and loop.time() < self._away_until_s:
            raise _away()
        future: asyncio.Future[None] = loop.create_future()
        self.put(_Asked(hold, future))
        try:
            await future
        except asyncio.CancelledError:
            # Cancelled after the answer came but before we woke: nobody else knows of the hold.
            if not future.cancelled() and future.exception() is None:
                with contextlib.suppress(Unavailable):
                    self._settlements.release(hold)
            raise

    async def _work(self) -> None:
        batch: list[_Asked] = []
        while self.queue and len(batch) < self._rows_max:
            asked = self.queue.popleft()
            if not asked.future.done():
                batch.append(asked)
        if not batch:
            return
        try:
            await self._execute(batch)
        except Exception as error:
            self._away_until_s = asyncio.get_running_loop().time() + _AWAY_S
            _log.warning("ledger_away", error=repr(error), holds=len(batch))
            self._give_up(batch)
            self._abandon()
        except asyncio.CancelledError:
            self._give_up(batch)
            raise

    async def _send(
        self, connection: ledger.Connection, items: Sequence[_Asked]
    ) -> Sequence[HoldResult]:
        for asked in items:
            asked.sent = True
        holds = [asked.hold for asked in items]
        return await ledger.hold_batch(connection, holds, self._process_id)

    def _deliver(self, items: Sequence[_Asked], results: Sequence[HoldResult]) -> None:
        again: list[_Asked] = []
        for asked, result in zip(items, results, strict=True):
            asked.sent = False
            left = result.available_nanos
            if result.accepted:
                self._accept(asked)
            elif left is None:
                _fail(asked, _no_account(asked.hold))
            elif asked.hold.amount_nanos <= left:
                again.append(asked)  # it fits, but stood behind a hold too big
            else:
                _fail(asked, _too_low(asked.hold, left))
        self.queue.extendleft(reversed(again))

    def _accept(self, asked: _Asked) -> None:
        if asked.future.done():
            self._settlements.release(asked.hold)
        else:
            asked.future.set_result(None)

    async def _offend(self, item: _Asked, error: Exception) -> None:
        item.sent = False
        _log.error("hold_refused", call_id=str(item.hold.call_id), error=repr(error))
        if isinstance(error, asyncpg.UniqueViolationError):
            _fail(item, Conflict("This call has a hold already."))
        else:
            _fail(item, BrokerError("The ledger refuses this hold.", code="hold_refused"))

    def _give_up(self, batch: Sequence[_Asked]) -> None:
        """Nobody serves on a hold of unknown fate: what may have committed is released.

        Should a statement that was cut off commit after even that, the hold expires in time.
        """
        for asked in batch:
            if asked.sent:
                with contextlib.suppress(Unavailable):
                    self._settlements.release(asked.hold)
            _fail(asked, _away())

    def _abandon(self) -> None:
        while self.queue:
            _fail(self.queue.popleft(), _away())


def _fail(asked: _Asked, error: BrokerError) -> None:
    if not asked.future.done():
        asked.future.set_exception(error)


def _away() -> Unavailable:
    return Unavailable("The ledger is away; nothing was charged.", retry_after_s=_AWAY_S)


def _no_account(hold: Hold) -> BrokerError:
    _log.error("ledger_account_missing", account=str(hold.account), call_id=str(hold.call_id))
    return BrokerError("The account has no funds account.", code="ledger_account_missing")


def _beyond_all(hold: Hold) -> BalanceTooLow:
    needed = format_usd(hold.amount_nanos)
    return BalanceTooLow(f"This call may cost up to {needed} USD, more than any balance holds.")


def _too_low(hold: Hold, available_nanos: int) -> BalanceTooLow:
    needed, available = format_usd(hold.amount_nanos), format_usd(available_nanos)
    return BalanceTooLow(
        f"This call may cost up to {needed} USD, and {available} USD are available.",
        facts={"needed_usd": needed, "available_usd": available},
    )

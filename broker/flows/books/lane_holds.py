"""The lane of holds: refuses fast when the database is away; leaves no hold without an owner.

A call that only open holds keep out of a budget asks again, at growing intervals, until its time is
over. It stands in nobody's way: whoever fits meanwhile, is let in.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec
import structlog

from broker.core.health.gradient import Gradient, kind_of
from broker.core.ledger import Hold
from broker.errors import BrokerError, Conflict, TooManyCalls, Unavailable
from broker.flows.books.hold_refusals import (
    beyond_all,
    budget_exceeded,
    budget_held,
    no_account,
    too_low,
)
from broker.flows.books.lane import Lane
from broker.flows.books.lane_ahead import AWAY_S, CALM, AheadLane, HoldTerms, Neighbours
from broker.store import ledger
from broker.store.ledger import HoldResult

_STATEMENT_S: Final = 5.0
_HOLD_NANOS_MAX: Final = 2**63 - 1
"""More does not fit a BIGINT, and would break the statement for the holds beside it."""

_WAITING_MAX: Final = 500
"""More calls than these are refused by a budget that only open holds fill, instead of waiting."""
_PAUSE_FIRST_S: Final = 0.05
_PAUSE_GROWTH: Final = 1.5
_PAUSE_MAX_S: Final = 0.5

_log = structlog.get_logger()


class _Asked(msgspec.Struct, eq=False, gc=False):
    hold: Hold
    future: asyncio.Future[None]
    asked_s: float
    """On the monotonic clock."""
    wait_s: float
    """So long it may wait for a budget, once it has to."""
    until_s: float = 0.0
    pause_s: float = 0.0


class HoldLane(Lane[_Asked, HoldResult]):
    """Holds of one process; what nobody waits for any more goes to `settlements` for release."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        terms: HoldTerms,
        beside: Neighbours,
        ahead: AheadLane,
    ) -> None:
        super().__init__(pool, terms.rows_max, _STATEMENT_S)
        self._process_id = terms.process_id
        self._settlements = beside.settlements
        self._doubts = beside.doubts
        self._known = beside.known
        self._ahead = ahead
        self._away_until_s = 0.0
        self._doubtful: Sequence[_Asked] = ()
        """What was in a statement that was cut off: it may have committed."""
        self._waiting = 0
        self._calm = min(CALM, terms.queue_max)
        self._gradient = Gradient(float(terms.queue_max), time.monotonic(), float(self._calm))
        self._took_s = 0.0
        """Of the last statement."""

    @property
    def limit(self) -> float:
        """So many calls may wait here at once, by how long the ledger takes."""
        return self._gradient.limit

    async def hold(self, hold: Hold, wait_s: float, share: float = 1.0) -> None:
        """Wait until the hold is durable. Raises as `LedgerBatcher.hold` says."""
        if self._closing:
            raise Unavailable("The broker is stopping.", retry_after_s=AWAY_S)
        waiting = max(len(self.queue), len(self._settlements.queue))
        if waiting >= self._calm and waiting >= share * self._gradient.limit:
            rounds = waiting // self._rows_max + 1
            raise TooManyCalls(
                "Too many calls wait for the ledger.",
                code="overloaded",
                retry_after_s=max(rounds * self._took_s, AWAY_S),
            )
        if hold.amount_nanos > _HOLD_NANOS_MAX:
            raise beyond_all(hold)
        loop = asyncio.get_running_loop()
        # A full disk may have room for holds and none for what their calls would end with.
        if self._settlements.is_stuck or (self._away_until_s and loop.time() < self._away_until_s):
            raise _away()
        future: asyncio.Future[None] = loop.create_future()
        self.put(_Asked(hold, future, time.monotonic(), wait_s))
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
        begun_s = time.monotonic()
        try:
            await self._execute(batch)
            self._learn(len(batch), begun_s)
        except Exception as error:
            self._away_until_s = asyncio.get_running_loop().time() + AWAY_S
            self._ahead.shut(self._away_until_s)
            self.outage.met(error, holds=len(batch))
            self._give_up(batch)
            self._abandon()
        except asyncio.CancelledError:
            self._give_up(batch)
            raise

    def _learn(self, rows: int, begun_s: float) -> None:
        now_s = time.monotonic()
        self._took_s = now_s - begun_s
        waiting = rows + len(self.queue)
        self._gradient.tell(kind_of(0, rows), self._took_s * 1_000, waiting, now_s)

    async def _send(
        self, connection: ledger.Connection, items: Sequence[_Asked]
    ) -> Sequence[HoldResult]:
        holds = [asked.hold for asked in items]
        try:
            return await ledger.hold_batch(connection, holds, self._process_id, self._known)
        except BaseException as error:
            if not isinstance(error, Exception) or ledger.is_away(error):
                self._doubtful = items
            raise

    def _deliver(self, items: Sequence[_Asked], results: Sequence[HoldResult]) -> None:
        again: list[_Asked] = []
        now_s = time.monotonic()
        for asked, result in zip(items, results, strict=True):
            if not result.accepted:
                if self._refuse(asked, result):
                    again.append(asked)
            elif asked.future.done():
                self._settlements.release(asked.hold)
            else:
                self.waits.add(now_s - asked.asked_s)
                asked.future.set_result(None)
        self.queue.extendleft(reversed(again))

    def _refuse(self, asked: _Asked, result: HoldResult) -> bool:
        """Tell the caller why, or let it wait; True when it fits and only stood behind others."""
        hold, left_nanos, budget = asked.hold, result.available_nanos, result.budget
        if left_nanos is None:
            _fail(asked, no_account(hold))
        elif hold.amount_nanos > left_nanos:
            # What is held ahead of other calls is in nobody's way: it goes back, and this one waits
            # for that, as do those which are refused beside it.
            short_nanos = hold.amount_nanos - left_nanos
            if not self._ahead.make_room(hold.account, short_nanos) or not self._wait(asked):
                _fail(asked, too_low(hold, left_nanos))
        elif budget is None:
            return True
        elif hold.amount_nanos > (budget.limit_nanos or 0) - budget.spent_nanos:
            _fail(asked, budget_exceeded(hold, budget))
        elif not self._wait(asked):
            _fail(asked, budget_held(hold, budget))
        return False

    def _wait(self, asked: _Asked) -> bool:
        """Ask again a little later; False when the time is over, or too many wait already."""
        loop = asyncio.get_running_loop()
        if not asked.pause_s:
            if self._waiting >= _WAITING_MAX:
                return False
            self._waiting += 1
            asked.future.add_done_callback(self._leave)
            asked.until_s = loop.time() + asked.wait_s
            asked.pause_s = _PAUSE_FIRST_S
        left_s = asked.until_s - loop.time()
        if left_s <= 0:
            return False
        loop.call_later(min(asked.pause_s, left_s), self._ask_again, asked)
        asked.pause_s = min(asked.pause_s * _PAUSE_GROWTH, _PAUSE_MAX_S)
        return True

    def _leave(self, _: asyncio.Future[None]) -> None:
        self._waiting -= 1

    def _ask_again(self, asked: _Asked) -> None:
        if not asked.future.done():
            try:
                self.put(asked)
            except Unavailable as error:
                asked.future.set_exception(error)

    async def _offend(self, item: _Asked, error: Exception) -> None:
        _log.error("hold_refused", call_id=str(item.hold.call_id), error=repr(error))
        if isinstance(error, asyncpg.UniqueViolationError):
            _fail(item, Conflict("This call has a hold already."))
        else:
            _fail(item, BrokerError("The ledger refuses this hold.", code="hold_refused"))

    def _give_up(self, batch: Sequence[_Asked]) -> None:
        """Nobody serves on a hold of unknown fate: what may commit yet is released."""
        doubtful, self._doubtful = self._doubtful, ()
        for asked in doubtful:
            with contextlib.suppress(Unavailable):
                self._doubts.put(asked.hold)
        for asked in batch:
            _fail(asked, _away())

    def _abandon(self) -> None:
        while self.queue:
            _fail(self.queue.popleft(), _away())


def _fail(asked: _Asked, error: BrokerError) -> None:
    if not asked.future.done():
        asked.future.set_exception(error)


def _away() -> Unavailable:
    return Unavailable("The ledger is away; nothing was charged.", retry_after_s=AWAY_S)

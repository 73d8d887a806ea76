"""The lanes of settlements and of records without a hold: kept and tried until they are written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import asyncpg
import msgspec
import structlog

from broker.core.ledger import CallRecord, Hold, Settlement, settlement
from broker.core.money.turnover import Turnover
from broker.errors import BrokerError, Unavailable
from broker.flows.books.lane import BackOff, Lane
from broker.store import ledger
from broker.store.books.budgeted_keys import BudgetedKeys
from broker.store.ledger import SettleResult

_STATEMENT_S: Final = 30.0
_STUCK_FROM: Final = 3
"""Failures in a row: a connection that was closed, or others in the way, are over before that."""
_RECORDS_MAX: Final = 10_000

_log = structlog.get_logger()


class _Closing(msgspec.Struct, eq=False, gc=False):
    settlement: Settlement
    future: asyncio.Future[bool] | None
    asked_s: float
    """On the monotonic clock."""
    draft: Callable[[], CallRecord] | None = None
    """Makes the record that it is to have."""
    doubtful: bool = False
    """A statement with it has failed: if the hold is gone, that may be our own doing."""
    done: bool = False


class SettlementLane(Lane[_Closing, SettleResult]):
    """Settlements of one process, with their call records."""

    def __init__(
        self, pool: asyncpg.Pool, rows_max: int, take_account: UUID, known: BudgetedKeys
    ) -> None:
        super().__init__(pool, rows_max, _STATEMENT_S)
        self.turnover = Turnover()
        self._take_account = take_account
        self._known = known
        self._back_off = BackOff()
        self.failures = 0
        """Of statements, in a row."""

    @property
    def is_stuck(self) -> bool:
        """True while what waits could not be written though it was tried again."""
        return self.failures >= _STUCK_FROM or self.has_died

    def settle(
        self, settlement: Settlement, draft: Callable[[], CallRecord] | None = None
    ) -> asyncio.Future[bool]:
        """Queue a settlement; the future is done once it is durable. It stays queued if the caller
        leaves.
        """
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.put(_Closing(settlement, future, time.monotonic(), draft))
        return future

    def release(self, hold: Hold) -> None:
        """Close a hold that nobody waits for."""
        closing = settlement(hold, (), datetime.now(UTC), None)
        self.put(_Closing(closing, None, time.monotonic()))

    async def _work(self) -> None:
        batch = self._next_batch()
        try:
            await self._execute(batch)
            self._back_off.reset()
            self.failures = 0
        except asyncio.CancelledError:
            self._put_back(batch)
            raise
        except Exception as error:
            self._put_back(batch)
            self.failures += 1
            self.outage.met(error, settlements=len(self.queue))
            await self._back_off.sleep()

    def _next_batch(self) -> list[_Closing]:
        """A second settlement of a call waits: it must find the hold gone, not break the batch."""
        queue, batch = self.queue, dict[int, _Closing]()
        while queue and len(batch) < self._rows_max:
            call = queue[0].settlement.call_id.int  # an int hashes in a tenth of a UUID's time
            if call in batch:
                break
            batch[call] = queue.popleft()
        made = list(batch.values())
        for closing in made:
            if closing.draft is not None:
                _write_out(closing, closing.draft)
        return made

    def _put_back(self, batch: Sequence[_Closing]) -> None:
        self.queue.extendleft(each for each in reversed(batch) if not each.done)

    async def _send(
        self, connection: ledger.Connection, items: Sequence[_Closing]
    ) -> Sequence[SettleResult]:
        settlements = [each.settlement for each in items]
        try:
            results = await ledger.settle_batch(
                connection, settlements, self._take_account, self._known
            )
            doubtful = [each.settlement for each in items if each.doubtful]
            ours = await _settled_as_told(connection, doubtful) if doubtful else ()
        except BaseException:
            for each in items:
                each.doubtful = True
            raise
        if not ours:
            return results
        return [
            SettleResult(settled=True) if each.call_id in ours else result
            for each, result in zip(settlements, results, strict=True)
        ]

    def _deliver(self, items: Sequence[_Closing], results: Sequence[SettleResult]) -> None:
        now_s = time.monotonic()
        for closing, result in zip(items, results, strict=True):
            closing.done = True
            if result.fault is not None:
                _refuse(closing, result.fault)
            elif closing.future is not None:
                waited_s = now_s - closing.asked_s
                self.waits.add(waited_s)
                if result.settled:
                    self.turnover.settled(closing.settlement, waited_s)
                if not closing.future.done():
                    closing.future.set_result(result.settled)

    async def _offend(self, item: _Closing, error: Exception) -> None:
        """Money comes before the log: without its call record the settlement may still stand."""
        if item.settlement.record is None:
            item.done = True
            _refuse(item, repr(error))
            return
        _log.error("call_record_lost", call_id=str(item.settlement.call_id), error=repr(error))
        item.settlement = msgspec.structs.replace(item.settlement, record=None)
        await self._execute([item])

    def _abandon(self) -> None:
        for closing in self.queue:
            _log.error("settlement_abandoned", call_id=str(closing.settlement.call_id))
            if closing.future is not None and not closing.future.done():
                closing.future.set_exception(Unavailable("The ledger is closed."))
        self.queue.clear()


class RecordLane(Lane[CallRecord, None]):
    """Records of calls that were refused before a hold."""

    def __init__(self, pool: asyncpg.Pool, rows_max: int, turnover: Turnover) -> None:
        super().__init__(pool, rows_max, _STATEMENT_S)
        self._turnover = turnover
        self._back_off = BackOff()
        self._dropped = 0

    def record(self, record: CallRecord) -> None:
        """Queue one record; drops it, counted in the log, when too many wait."""
        self._turnover.ended(record)
        if len(self.queue) < _RECORDS_MAX:
            self.put(record)
            return
        self._dropped += 1
        if self._dropped % 1_000 == 1:
            _log.warning("call_records_dropped", so_far=self._dropped)

    async def _work(self) -> None:
        batch = [self.queue.popleft() for _ in range(min(len(self.queue), self._rows_max))]
        try:
            await self._execute(batch)
            self._back_off.reset()
        except Exception as error:
            # Writing a record twice is harmless, so the whole batch goes back.
            self.queue.extendleft(reversed(batch))
            self.outage.met(error, records=len(self.queue))
            await self._back_off.sleep()

    async def _send(
        self, connection: ledger.Connection, items: Sequence[CallRecord]
    ) -> Sequence[None]:
        await ledger.record_batch(connection, items)
        return (None,) * len(items)

    def _deliver(self, items: Sequence[CallRecord], results: Sequence[None]) -> None:
        """Nobody waits for a record."""

    async def _offend(self, item: CallRecord, error: Exception) -> None:
        _log.error("call_record_lost", call_id=str(item.id), error=repr(error))

    def _abandon(self) -> None:
        if self.queue:
            _log.warning("call_records_dropped", so_far=self._dropped + len(self.queue))
        self.queue.clear()


def _write_out(closing: _Closing, draft: Callable[[], CallRecord]) -> None:
    """Make the record of a call; money comes before the log, and is settled without it as well."""
    closing.draft = None
    plain = closing.settlement
    try:
        record = draft()
    except Exception as error:
        _log.error("call_record_lost", call_id=str(plain.call_id), error=repr(error))
        return
    closing.settlement = Settlement(
        plain.call_id, plain.kind, plain.charge_nanos, plain.settled_at, plain.lines, record
    )


def _refuse(closing: _Closing, reason: str) -> None:
    call_id = str(closing.settlement.call_id)
    _log.error("settlement_refused", call_id=call_id, reason=reason)
    if closing.future is not None and not closing.future.done():
        closing.future.set_exception(
            BrokerError("The ledger refuses this settlement.", code="settlement_refused")
        )


async def _settled_as_told(
    connection: ledger.Connection, settlements: Sequence[Settlement]
) -> frozenset[UUID]:
    """The calls that a statement of unknown fate did settle just as it was told."""
    call_ids = [each.call_id for each in settlements]
    found = await ledger.settled_as(connection, call_ids)
    return frozenset(
        each.call_id
        for each in settlements
        if found.get(each.call_id) == (each.kind, each.charge_nanos)
    )

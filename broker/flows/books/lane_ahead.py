"""The lane of holds that are opened ahead of their calls, and the shelves on which they wait.

They have a connection of their own: a call that opens its own hold waits for none of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
import msgspec
import structlog

from broker.core.ledger import Hold
from broker.core.money.ahead import MANY_TIMES, WINDOW_S, Ready, Shelf
from broker.errors import Unavailable
from broker.flows.books.lane import Lane
from broker.flows.books.lane_doubts import DoubtLane
from broker.flows.books.lane_settlements import SettlementLane
from broker.store import ledger
from broker.store.books.budgeted_keys import BudgetedKeys
from broker.store.calls.call_ids import new_call_id
from broker.store.ledger import HoldResult

_STATEMENT_S: Final = 5.0
AWAY_S: Final = 1.0
"""After a failure, holds are refused at once for this long."""
CALM: Final = 64
"""So few calls that wait for the ledger are never too many."""
SHELVES_MAX: Final = 10_000
"""Calls of further keys open their own holds."""
_FORGOTTEN_S: Final = 2 * WINDOW_S
"""A shelf for which no call comes for so long, or twice that, is forgotten."""
_RETURNS_S: Final = 0.5
"""So long at most it takes until the books have what is given back."""
_BITS_MAX: Final = 62
"""Of an amount: more, and a little on top, may not fit a BIGINT, and would break the statement for
the holds beside it."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class HoldTerms:
    """Whose holds these are, how many go into a statement, and how many may wait."""

    process_id: int
    rows_max: int = 512
    queue_max: int = 2_000
    ahead_s: float = 420.0
    """Those opened ahead of their calls last for so long."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What lanes of holds work with: what they hand on, and what all of them know."""

    settlements: SettlementLane
    """For release."""
    doubts: DoubtLane
    known: BudgetedKeys


class _Opening(msgspec.Struct, eq=False, gc=False):
    shelf: Shelf
    hold: Hold
    id_text: str
    asked_s: float
    done: bool = False


class AheadLane(Lane[_Opening, HoldResult]):
    """Holds ahead of the calls of one process; what no call takes is released.

    Keys with budgets have none: what such a key may still spend is for its calls alone.
    """

    def __init__(self, pool: asyncpg.Pool, terms: HoldTerms, beside: Neighbours) -> None:
        super().__init__(pool, terms.rows_max, _STATEMENT_S)
        self._terms = terms
        self._beside = beside
        self._shelves: dict[tuple[str, int], Shelf] = {}
        self._before: dict[tuple[str, int], Shelf] = {}
        """Those for which no call has come since `_turned_s`: they are looked at by nobody, for
        there may be thousands of keys with a call now and then."""
        self._turned_s = 0.0
        self._stocked: set[Shelf] = set()
        """Those on which something is ready, or that it is being opened for."""
        self._returned: dict[UUID, tuple[float, int]] = {}
        """When what an account had ready was given back, the last time, and how many nanos."""
        self.taken = 0
        """So many calls found their hold ready, and waited for none."""
        self._sweeping: asyncio.TimerHandle | None = None
        self._shut_until_s = 0.0
        self._generation = beside.known.generation
        self._lasts = timedelta(seconds=terms.ahead_s)

    async def close(self, timeout_s: float) -> None:
        """Give back what is ready, wait for what is under way, and let go of the connection."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._closing = True
        for shelf in self._stocked:
            self._give_back(shelf)
        await super().close(timeout_s)

    def take(self, account: UUID, key_id: str, amount_nanos: int) -> Ready | None:
        """Return a durable hold of this key's, for so much or a little more, that no other call
        takes; None: there is none, or the ledger has too much to do."""
        now_s, settlements = time.monotonic(), self._beside.settlements
        if now_s < self._shut_until_s or settlements.failures or len(settlements.queue) >= CALM:
            return None
        if self._beside.known.generation != self._generation:
            self._mind_first_budgets()
        place = key_id, amount_nanos.bit_length()
        shelf = self._shelves.get(place)
        if shelf is None:
            if len(self._shelves) >= SHELVES_MAX or self._closing or place[1] > _BITS_MAX:
                return None
            shelf = self._before.pop(place, None) or Shelf(account, key_id, now_s)
            self._shelves[place] = shelf
            self._sweep_later()
        ready = shelf.take(amount_nanos, now_s)
        if 2 * (len(shelf.ready) + shelf.coming) <= shelf.wanted:
            self._open(shelf, shelf.due(now_s))
        self.taken += ready is not None
        return ready

    def shut(self, until_s: float) -> None:
        """Let none be taken until then, on the monotonic clock: the database is away."""
        self._shut_until_s = until_s

    def make_room(self, account: UUID, short_nanos: int) -> bool:
        """Release all that waits for calls which this account pays, if it may make up for so much;
        whether it does, with what was released a moment ago."""
        now_s = time.monotonic()
        at_s, nanos = self._returned.get(account, (0.0, 0))
        if now_s - at_s >= _RETURNS_S:
            nanos = 0
        shelves = [each for each in self._stocked if each.account == account and not each.is_empty]
        nanos += sum(each.held_nanos for each in shelves)
        if short_nanos > nanos:
            return False
        for shelf in shelves:
            self._give_back(shelf)
        if shelves:
            self._returned[account] = now_s, nanos
        return True

    @property
    def shelves(self) -> int:
        """Of so many keys and orders of magnitude calls have come of late."""
        return len(self._shelves) + len(self._before)

    def _mind_first_budgets(self) -> None:
        """Give back what was opened before its key had a budget, which knows of calls alone."""
        self._generation = self._beside.known.generation
        for shelf in self._stocked:
            if self._beside.known.vouch((shelf.key_id,)) is None:
                self._give_back(shelf)

    def _open(self, shelf: Shelf, count: int) -> None:
        if self._beside.known.vouch((shelf.key_id,)) is None:
            self._give_back(shelf)
            return
        if count:
            self._stocked.add(shelf)
        now, now_s = datetime.now(UTC), time.monotonic()
        for _ in range(count):
            call_id, id_text = new_call_id()
            terms = (shelf.key_id, shelf.amount_nanos, now, now + self._lasts)
            hold = Hold(call_id, shelf.account, *terms)
            try:
                self.put(_Opening(shelf, hold, id_text, now_s))
            except Unavailable:
                return
            shelf.coming += 1

    def _give_back(self, shelf: Shelf) -> None:
        """Release what is ready, and have no more opened for a while."""
        shelf.rest(time.monotonic())
        self._release_all(each.hold for each in shelf.ready)
        shelf.ready.clear()

    def _release_all(self, holds: Iterable[Hold]) -> None:
        with contextlib.suppress(Unavailable):  # then they are released with this process's lease
            for hold in holds:
                self._beside.settlements.release(hold)

    def _sweep_later(self) -> None:
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(WINDOW_S, self._sweep)

    def _sweep(self) -> None:
        """Release what no call has taken, and forget whose calls come no more."""
        now_s = time.monotonic()
        for shelf in tuple(self._stocked):
            self._release_all(shelf.unused(now_s))
            if shelf.is_empty:
                self._stocked.remove(shelf)
        if now_s - self._turned_s >= _FORGOTTEN_S:
            self._before, self._shelves, self._turned_s = self._shelves, {}, now_s
            self._returned = {
                account: (at_s, nanos)
                for account, (at_s, nanos) in self._returned.items()
                if now_s - at_s < _RETURNS_S
            }
        self._sweeping = None
        if (self._shelves or self._before or self._stocked) and not self._closing:
            self._sweep_later()

    async def _work(self) -> None:
        rows = min(len(self.queue), self._rows_max)
        batch = [self.queue.popleft() for _ in range(rows)]
        try:
            await self._execute(batch)
        except Exception as error:
            self.outage.met(error, holds_ahead=len(batch))
            self._forgo(batch)
            self._abandon()
            self.shut(time.monotonic() + AWAY_S)
        except asyncio.CancelledError:
            self._forgo(batch)
            raise

    async def _send(
        self, connection: ledger.Connection, items: Sequence[_Opening]
    ) -> Sequence[HoldResult]:
        holds = [each.hold for each in items]
        process_id = self._terms.process_id
        try:
            return await ledger.hold_batch(
                connection, holds, process_id, self._beside.known, MANY_TIMES
            )
        except BaseException as error:
            if not isinstance(error, Exception) or ledger.is_away(error):
                with contextlib.suppress(Unavailable):
                    for hold in holds:
                        self._beside.doubts.put(hold)
            raise

    def _deliver(self, items: Sequence[_Opening], results: Sequence[HoldResult]) -> None:
        now_s = time.monotonic()
        for each, result in zip(items, results, strict=True):
            shelf, each.done = each.shelf, True
            shelf.coming -= 1
            if not result.accepted:
                shelf.refused(now_s)
            elif self._closing:
                self._release_all((each.hold,))
            else:
                shelf.ready.append(Ready(each.hold, each.id_text, each.asked_s, now_s))

    async def _offend(self, item: _Opening, error: Exception) -> None:
        _log.error("hold_refused", call_id=item.id_text, error=repr(error))
        self._forgo((item,))

    def _forgo(self, items: Iterable[_Opening]) -> None:
        now_s = time.monotonic()
        for each in items:
            if not each.done:
                each.done = True
                each.shelf.coming -= 1
                each.shelf.rest(now_s)

    def _abandon(self) -> None:
        self._forgo(self.queue)
        self.queue.clear()

"""Shares a number of places among owners so that no few of them can take all.

A known owner that has none gets one of the first places, which are kept for that. All others come
out of a stock, of which nobody may have more than are still left in it (A. K. Choudhury and
E. L. Hahne, "Dynamic queue length thresholds", 1998): the more owners take their fill, the less
that is. Who waits is served in the order of asking among one owner, and owners are served in turn.
"""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec


class Holding(msgspec.Struct, eq=False):
    """What one owner has, and who of it waits."""

    is_known: bool
    has_first: bool = False
    of_stock: int = 0
    waiting: deque[asyncio.Future[None]] = msgspec.field(default_factory=deque)

    @property
    def count(self) -> int:
        """Places that are taken."""
        return self.has_first + self.of_stock


class Places:
    """The places of one event loop: `take` one, and `leave` it in the end."""

    def __init__(self, stock: int, firsts: int, of_an_owner: int) -> None:
        self._stock = stock
        self._firsts = firsts
        self._of_an_owner = of_an_owner
        self._holdings: dict[str, Holding] = {}

    def is_full(self, owner: str, *, is_known: bool) -> bool:
        """True when the next of an owner would have to wait."""
        holding = self._holdings.get(owner) or Holding(is_known)
        return bool(holding.waiting) or not self._has_room(holding)

    async def take(self, owner: str, *, is_known: bool) -> None:
        """Return when a place was got; only who `is_known` has a right to one of the first."""
        holding = self._holdings.get(owner)
        if holding is None:
            holding = self._holdings[owner] = Holding(is_known)
        if not holding.waiting and self._has_room(holding):
            self._give(holding)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        holding.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given, but nobody wants it any more
                self.leave(owner)
            elif turn in holding.waiting:
                holding.waiting.remove(turn)
            self._forget(owner)
            raise

    def leave(self, owner: str) -> None:
        """Give a place back: to the stock first, for an owner's first place is for its next."""
        holding = self._holdings[owner]
        if holding.of_stock:
            holding.of_stock -= 1
            self._stock += 1
        else:
            holding.has_first = False
            self._firsts += 1
        self._forget(owner)
        self._serve()

    def _has_room(self, holding: Holding) -> bool:
        if holding.count >= self._of_an_owner:
            return False
        return self._has_first(holding) or holding.of_stock < self._stock

    def _has_first(self, holding: Holding) -> bool:
        return holding.is_known and not holding.has_first and self._firsts > 0

    def _give(self, holding: Holding) -> None:
        if self._has_first(holding):
            holding.has_first = True
            self._firsts -= 1
        else:
            holding.of_stock += 1
            self._stock -= 1

    def _serve(self) -> None:
        """Give what is free to those who wait."""
        for owner, holding in tuple(self._holdings.items()):
            served = False
            while holding.waiting and self._has_room(holding):
                turn = holding.waiting.popleft()
                if not turn.done():
                    self._give(holding)
                    turn.set_result(None)
                    served = True
            if served:  # behind the others
                self._holdings[owner] = self._holdings.pop(owner)

    def _forget(self, owner: str) -> None:
        holding = self._holdings.get(owner)
        if holding is not None and not holding.count and not holding.waiting:
            del self._holdings[owner]

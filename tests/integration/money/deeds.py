"""What can be done in a random life, each deed twice: to the market, and to the oracle.

A deed is drawn with plain numbers, so that what is drawn never depends on what came before; `aim`
finds what they stand for by the oracle's state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, ClassVar, Final, Self, TypeVar

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.flows.access.once import Request, once
from broker.store.access.idempotency import Answer
from tests.integration.money.market import OFFICE, Market
from tests.integration.money.oracle import KEPT, Oracle
from tests.integration.money.oracle_books import Refused

Outcome = Any
"""What a deed came to, as JSON would have it."""

Thing = TypeVar("Thing")
_UNSAID: Final = (-1, "", (), None)
"""What stands where `aim` has not looked yet."""


@dataclass(frozen=True, kw_only=True)
class Deed(ABC):
    """One deed; `number` names whatever it makes."""

    number: int = -1
    apart_from: ClassVar[frozenset[str]] = frozenset()
    """The kinds that pass over what this one has locked, which is right and yet in no order."""

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Tell what was drawn, and nothing else, in the story of a life that went wrong."""
        drawn = {each.name: getattr(self, each.name) for each in fields(self)}
        told = [f"{name}={value!r}" for name, value in drawn.items() if value not in _UNSAID]
        printer.text(f"{type(self).__name__}({', '.join(told)})")

    def numbered(self, number: int) -> Self:
        return replace(self, number=number)

    def aim(self, oracle: Oracle) -> Self | None:
        """Find what it is about; None when there is nothing of the kind."""
        return self

    @abstractmethod
    def expect(self, oracle: Oracle) -> Outcome:
        """Do it in plain Python. Raises Refused, and then nothing has changed."""

    @abstractmethod
    async def act(self, market: Market, now: datetime) -> Outcome:
        """Do it in earnest. Raises BrokerError."""

    def yields_to(self, others: Sequence[Deed], oracle: Oracle) -> frozenset[str]:
        """The codes with which it may be refused because of another that is just under way."""
        return frozenset()


@dataclass(frozen=True, kw_only=True)
class Order(Deed):
    """What an operator orders over HTTP: perhaps under an idempotency key."""

    key: str | None = None

    @property
    def meaning(self) -> str:
        return repr(replace(self, key=None, number=0))

    def expect(self, oracle: Oracle) -> Outcome:
        if self.key is None:
            return self.obey(oracle)
        former = oracle.answers.get(self.key)
        if former is None or former[2] <= oracle.now:
            answer = self.obey(oracle)
            oracle.answers[self.key] = (self.meaning, answer, oracle.now + KEPT)
            return answer
        if former[0] != self.meaning:
            raise Refused("idempotency_conflict")
        return former[1]

    @abstractmethod
    def obey(self, oracle: Oracle) -> Outcome:
        """Do it in plain Python, whatever was ordered before."""

    @abstractmethod
    async def within(self, connection: AsyncConnection, market: Market, now: datetime) -> Outcome:
        """Do it in the transaction of the request."""

    async def act(self, market: Market, now: datetime) -> Outcome:
        async def answer(connection: AsyncConnection) -> Answer:
            return Answer(200, msgspec.json.encode(await self.within(connection, market, now)))

        request = Request(OFFICE.account_id, self.key, self.meaning.encode())
        done = await once(market.memory, request, answer, now)
        return msgspec.json.decode(done.answer.body)


def picked(things: Sequence[Thing], place: int) -> Thing | None:
    """One of some things, by a number of any size."""
    return things[place % len(things)] if things else None

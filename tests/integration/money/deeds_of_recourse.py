"""Deeds about what goes back: refunds, disputes, and the clock that decides for the silent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar, Self

from sqlalchemy.ext.asyncio import AsyncConnection

from broker.flows.money import answer_dispute
from broker.flows.money.dispute import Request, Times, open_dispute, withdraw
from broker.flows.money.refund import refund
from broker.store.money.disputes import Verdict
from tests.integration.money.deeds import Deed, Order, Outcome, picked
from tests.integration.money.market import OFFICE, PROVIDERS, Market
from tests.integration.money.oracle import Oracle
from tests.integration.money.oracle_recourse import ANSWER, WINDOW

TIMES = Times(WINDOW, ANSWER)


def some_call(oracle: Oracle, place: int, *, charged: bool) -> int | None:
    """A call that cost something, if there is one; else any."""
    paid = [each for each, call in oracle.calls.items() if call.lines] if charged else []
    return picked(paid or list(oracle.calls), place)


@dataclass(frozen=True, kw_only=True)
class Refund(Order):
    """An operator gives a call's money back: all that is left, or some percent of the charge."""

    place: int
    percent: int | None
    charged: bool
    call: int = -1
    amount: int | None = None

    def aim(self, oracle: Oracle) -> Self | None:
        number = some_call(oracle, self.place, charged=self.charged)
        if number is None:
            return None
        amount = None
        if self.percent is not None:
            amount = oracle.calls[number].charge * self.percent // 100
        return replace(self, call=number, amount=amount)

    def obey(self, oracle: Oracle) -> Outcome:
        return oracle.refund(self.call, self.amount)

    async def within(self, connection: AsyncConnection, market: Market, now: datetime) -> Outcome:
        call_id = market.calls[self.call].call_id
        note = await refund(connection, OFFICE, call_id, self.amount, "it was wrong", now)
        return note.amount_nanos


@dataclass(frozen=True, kw_only=True)
class OpenDispute(Deed):
    """A consumer asks for its money back; now and then for a call of another's."""

    place: int
    percent: int | None
    charged: bool
    foreign: bool
    call: int = -1
    amount: int | None = None
    consumer: str = ""

    def aim(self, oracle: Oracle) -> Self | None:
        number = some_call(oracle, self.place, charged=self.charged)
        if number is None:
            return None
        call, amount = oracle.calls[number], None
        if self.percent is not None:
            amount = call.charge * self.percent // 100
        consumer = "c0" if self.foreign and call.consumer != "c0" else call.consumer
        return replace(self, call=number, amount=amount, consumer=consumer)

    def expect(self, oracle: Oracle) -> Outcome:
        return oracle.open_dispute(self.number, self.consumer, self.call, self.amount)

    async def act(self, market: Market, now: datetime) -> Outcome:
        asked = Request(market.calls[self.call].call_id, "not what was promised", self.amount)
        caller = market.roster.caller(self.consumer)
        async with market.engine.begin() as connection:
            dispute = await open_dispute(connection, caller, asked, TIMES, now)
        market.disputes[self.number] = dispute.id
        return dispute.asked_nanos


@dataclass(frozen=True, kw_only=True)
class AboutDispute(Deed):
    """A word about a dispute that is under way, if there is one; else about any."""

    place: int
    who: int
    dispute: int = -1
    caller: str = ""

    def aim(self, oracle: Oracle) -> Self | None:
        live = [each for each, dispute in oracle.disputes.items() if dispute.is_live]
        dispute = picked(live or list(oracle.disputes), self.place)
        if dispute is None:
            return None
        return replace(self, dispute=dispute, caller=self._caller(oracle, dispute))

    def _caller(self, oracle: Oracle, dispute: int) -> str:
        """A provider concerned; now and then one that is not."""
        concerned = list(oracle.disputes[dispute].parts)
        return PROVIDERS[self.who % 3] if self.who > 90 else concerned[self.who % len(concerned)]


@dataclass(frozen=True, kw_only=True)
class Accept(AboutDispute):
    """A provider gives back what is asked of it."""

    def expect(self, oracle: Oracle) -> Outcome:
        return oracle.accept(self.dispute, self.caller)

    async def act(self, market: Market, now: datetime) -> Outcome:
        caller, dispute = market.roster.caller(self.caller), market.disputes[self.dispute]
        async with market.engine.begin() as connection:
            done = await answer_dispute.accept(connection, caller, dispute, "", now)
        return done.status.value


@dataclass(frozen=True, kw_only=True)
class Contest(AboutDispute):
    """A provider says no."""

    def expect(self, oracle: Oracle) -> Outcome:
        return oracle.contest(self.dispute, self.caller)

    async def act(self, market: Market, now: datetime) -> Outcome:
        caller, dispute = market.roster.caller(self.caller), market.disputes[self.dispute]
        async with market.engine.begin() as connection:
            done = await answer_dispute.contest(connection, caller, dispute, "no", now)
        return done.status.value


@dataclass(frozen=True, kw_only=True)
class Withdraw(AboutDispute):
    """The consumer lets it be."""

    def _caller(self, oracle: Oracle, dispute: int) -> str:
        consumer = oracle.calls[oracle.disputes[dispute].call].consumer
        return "c0" if self.who > 90 else consumer

    def expect(self, oracle: Oracle) -> Outcome:
        return oracle.withdraw(self.dispute, self.caller)

    async def act(self, market: Market, now: datetime) -> Outcome:
        caller, dispute = market.roster.caller(self.caller), market.disputes[self.dispute]
        async with market.engine.begin() as connection:
            return (await withdraw(connection, caller, dispute, now)).status.value


@dataclass(frozen=True, kw_only=True)
class Decide(AboutDispute):
    """An operator decides what was contested."""

    upheld: bool
    percent: int | None
    amount: int | None = None

    @property
    def verdict(self) -> Verdict:
        return Verdict.UPHELD if self.upheld else Verdict.REJECTED

    def aim(self, oracle: Oracle) -> Self | None:
        aimed = super().aim(oracle)
        if aimed is None or self.percent is None:
            return aimed
        asked = sum(part.asked for part in oracle.disputes[aimed.dispute].parts.values())
        return replace(aimed, amount=asked * self.percent // 100)

    def expect(self, oracle: Oracle) -> Outcome:
        return oracle.decide(self.dispute, self.verdict.value, self.amount)

    async def act(self, market: Market, now: datetime) -> Outcome:
        ruling = (self.verdict, self.amount, "looked into it")
        dispute = market.disputes[self.dispute]
        async with market.engine.begin() as connection:
            done = await answer_dispute.decide(connection, OFFICE, dispute, ruling, now)
        return done.refunded_nanos


@dataclass(frozen=True, kw_only=True)
class DecideOverdue(Deed):
    """The worker decides for the consumer where providers were silent."""

    apart_from: ClassVar[frozenset[str]] = frozenset(
        {"DecideOverdue", "Accept", "Contest", "Withdraw", "Decide"}
    )

    def expect(self, oracle: Oracle) -> Outcome:
        return oracle.decide_overdue()

    async def act(self, market: Market, now: datetime) -> Outcome:
        return await answer_dispute.decide_overdue(market.engine, now)

"""Deeds of the office: top-ups, adjustments, seals, maturity, payouts and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import ClassVar, Literal, Self

from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.money.maturity import MaturityTerms
from broker.core.money.payout import Schedule
from broker.flows.books.seal import AGE_MIN, seal
from broker.flows.money import payout_events, payout_terms, topup
from broker.flows.money.mature import mature
from broker.flows.money.pay_out import pay_out
from broker.flows.money.pay_out_due import pay_out_due
from broker.flows.money.payout_events import Word
from broker.flows.money.payout_terms import Wishes
from broker.store.books.transfers import TransferKind
from tests.integration.money.deeds import Deed, Order, Outcome, picked
from tests.integration.money.market import CONSUMERS, OFFICE, SEALER, Market
from tests.integration.money.oracle import DELAY_DAYS, Oracle

MATURITY = MaturityTerms(days_new=DELAY_DAYS)


@dataclass(frozen=True, kw_only=True)
class Move(Order):
    """Money from the world to an account, or back to it where the amount is below zero."""

    account: str
    amount: int

    def obey(self, oracle: Oracle) -> Outcome:
        kind = "funds" if self.account in CONSUMERS else "available"
        return oracle.top_up(f"{kind} {self.account}", self.amount)

    async def within(self, connection: AsyncConnection, market: Market, now: datetime) -> Outcome:
        plain = self.amount > 0 and self.account in CONSUMERS
        kind = TransferKind.TOPUP if plain else TransferKind.ADJUSTMENT
        order = topup.Order(self.account, self.amount, "by hand", kind)
        return (await topup.move(connection, OFFICE, order, now)).posted_nanos


@dataclass(frozen=True, kw_only=True)
class Seal(Deed):
    """The night's seal: as of an hour ago, or longer."""

    hours: int

    def expect(self, oracle: Oracle) -> Outcome:
        return oracle.seal(oracle.now - timedelta(hours=self.hours))

    async def act(self, market: Market, now: datetime) -> Outcome:
        assert timedelta(hours=self.hours) >= AGE_MIN
        return await seal(market.engine, now - timedelta(hours=self.hours), now)


def richest(oracle: Oracle) -> str:
    """The provider with the most to gain from a payout."""
    return max(
        oracle.providers,
        key=lambda each: oracle.posted[f"earnings {each}"] + oracle.posted[f"available {each}"],
    )


@dataclass(frozen=True, kw_only=True)
class Mature(Deed):
    """Earnings become available and pay what is owed; without a name those of the richest."""

    provider: str = ""

    def aim(self, oracle: Oracle) -> Self | None:
        return replace(self, provider=self.provider or richest(oracle))

    def expect(self, oracle: Oracle) -> Outcome:
        return list(oracle.mature(self.provider))

    async def act(self, market: Market, now: datetime) -> Outcome:
        provider = market.roster.accounts[self.provider].id
        done = await mature(market.engine, provider, MATURITY, now)
        return [done.matured_nanos, done.recovered_nanos]


@dataclass(frozen=True, kw_only=True)
class SetDelay(Deed):
    """An operator lets a provider's earnings wait so long."""

    provider: str
    days: int

    def expect(self, oracle: Oracle) -> Outcome:
        oracle.terms[self.provider].delay_days = self.days
        return self.days

    async def act(self, market: Market, now: datetime) -> Outcome:
        async with market.engine.begin() as connection:
            terms = await payout_terms.set_delay(connection, OFFICE, self.provider, self.days, now)
        return terms.delay_days


@dataclass(frozen=True, kw_only=True)
class Wish(Deed):
    """A provider says how often it wants to be paid, and from which amount on."""

    provider: str
    schedule: Literal["manual", "daily", "weekly"]
    threshold: int

    def expect(self, oracle: Oracle) -> Outcome:
        return oracle.wish(self.provider, self.schedule, self.threshold)

    async def act(self, market: Market, now: datetime) -> Outcome:
        wishes = Wishes(Schedule(self.schedule), self.threshold)
        caller = market.roster.caller(self.provider)
        async with market.engine.begin() as connection:
            await payout_terms.wish(connection, caller, wishes, SEALER, now)
        return "wished"


@dataclass(frozen=True, kw_only=True)
class PayOut(Order):
    """One provider is paid now; without a name the richest."""

    provider: str = ""

    def aim(self, oracle: Oracle) -> Self | None:
        return replace(self, provider=self.provider or richest(oracle))

    def obey(self, oracle: Oracle) -> Outcome:
        return list(oracle.pay_out(self.provider))

    async def within(self, connection: AsyncConnection, market: Market, now: datetime) -> Outcome:
        provider = market.roster.accounts[self.provider].id
        made = await pay_out(connection, OFFICE.name, provider, now)
        market.payouts[self.provider, made.number] = made.id
        return [made.number, made.amount_nanos]


@dataclass(frozen=True, kw_only=True)
class PayOutDue(Deed):
    """The worker pays those whose time has come, one after the other; another's at that moment it
    leaves alone. So what concerns several providers may fall between two."""

    apart_from: ClassVar[frozenset[str]] = frozenset(
        {"PayOutDue", "PayOut", "Wish", "SetDelay"}
        | {"Refund", "OpenDispute", "Withdraw", "Decide", "DecideOverdue"}
    )

    def expect(self, oracle: Oracle) -> Outcome:
        return {provider: list(made) for provider, made in oracle.pay_out_due().items()}

    async def act(self, market: Market, now: datetime) -> Outcome:
        made = await pay_out_due(market.engine, "clock", now)
        for each in made:
            market.payouts[each.provider, each.number] = each.id
        return {each.provider: [each.number, each.amount_nanos] for each in made}


@dataclass(frozen=True, kw_only=True)
class TakePayoutOn(Deed):
    """The bank says what became of a payout."""

    place: int
    to: Literal["sent", "failed", "returned"]
    provider: str = ""
    payout: int = -1

    def aim(self, oracle: Oracle) -> Self | None:
        made = [(who, n) for who, each in oracle.payouts.items() for n in range(len(each))]
        chosen = picked(made, self.place)
        return None if chosen is None else replace(self, provider=chosen[0], payout=chosen[1])

    def expect(self, oracle: Oracle) -> Outcome:
        return oracle.step(self.provider, self.payout, self.to)

    async def act(self, market: Market, now: datetime) -> Outcome:
        step = {
            "sent": payout_events.confirm,
            "failed": payout_events.fail,
            "returned": payout_events.give_back,
        }[self.to]
        payout, word = market.payouts[self.provider, self.payout + 1], Word("bank", "so it was")
        async with market.engine.begin() as connection:
            return (await step(connection, payout, word, now)).status.value

"""Deeds of brokers: holds, their settlements, keyed and quoted calls, sweeps, lost leases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import ClassVar, Final, Literal, Self, TypeAlias

import msgspec
from uuid_utils.compat import uuid7

from broker.core import ledger
from broker.core.catalog import Task
from broker.core.ledger import CallRecord, Hold, Settlement, SettlementKind
from broker.core.quote import Offer, Promise
from broker.core.requirements import Requirements
from broker.errors import BrokerError, Conflict
from broker.flows.books.sweep import release_orphans, sweep_expired
from broker.store.access import claims
from broker.store.access.claims import Claim, Stage
from broker.store.access.idempotency import Place
from broker.store.books import budgets
from broker.store.books.budgets import Budgets
from broker.store.calls import quotes
from pricing.book import Rate
from tests.integration.ledger.entries import a_record
from tests.integration.money import clock
from tests.integration.money import oracle as expected
from tests.integration.money.deeds import Deed, Outcome, picked
from tests.integration.money.market import PROVIDERS, Market
from tests.integration.money.oracle import Oracle, Quote
from tests.integration.money.oracle_books import Line, Refused, priced

VERSION: Final = 7
CALL_LASTS: Final = timedelta(minutes=10)
FREE_AFTER: Final = timedelta(minutes=5)
RATES: Final = ((1_000_000, 2_000_000, 0), (1, 3, 0), (333_333, 7, 11), (0, 0, 1_234_567))
"""In and out in micro-dollars per million tokens, and nano-dollars per call."""


@dataclass(frozen=True, kw_only=True)
class Admit(Deed):
    """A call's hold, opened by one of the brokers."""

    payer: str
    amount: int
    broker: int

    def expect(self, oracle: Oracle) -> Outcome:
        return oracle.hold(self.number, self.payer, self.amount, self.broker, CALL_LASTS)

    async def act(self, market: Market, now: datetime) -> Outcome:
        await market.brokers[self.broker].batcher.hold(self._hold(market, now))
        return "held"

    def _hold(self, market: Market, now: datetime) -> Hold:
        funds = market.roster.accounts[self.payer.split()[0]].ledger_account
        assert funds is not None
        key = market.roster.keys[self.payer]
        hold = Hold(uuid7(), funds, key, self.amount, now, now + CALL_LASTS)
        market.calls[self.number] = hold
        return hold


@dataclass(frozen=True, kw_only=True)
class AdmitAgain(Deed):
    """The hold of a call of today, once more."""

    place: int
    broker: int
    call: int = -1

    def aim(self, oracle: Oracle) -> Self | None:
        today = [each for each, call in oracle.calls.items() if call.at.date() == oracle.now.date()]
        call = picked(today, self.place)
        return None if call is None else replace(self, call=call)

    def expect(self, oracle: Oracle) -> Outcome:
        call = oracle.calls[self.call]
        return oracle.hold(self.call, call.key, call.held, self.broker, CALL_LASTS)

    async def act(self, market: Market, now: datetime) -> Outcome:
        await market.brokers[self.broker].batcher.hold(market.calls[self.call])
        return "held twice"


@dataclass(frozen=True, kw_only=True)
class AdmitKeyed(Admit):
    """A call under an idempotency key of its consumer."""

    key: str
    meaning: int

    def yields_to(self, others: Sequence[Deed], oracle: Oracle) -> frozenset[str]:
        consumer = self.payer.split()[0]
        rivals = [
            each
            for each in others
            if isinstance(each, AdmitKeyed)
            and (each.key, each.payer.split()[0]) == (self.key, consumer)
        ]
        if not rivals:
            return frozenset()
        if all(oracle.processes[each.broker].leased for each in rivals):
            return frozenset({"idempotency_running"})
        # A broker cut off is taken for dead, and its claim taken over; that it lives still, and
        # opened a hold, it finds out only when it asks whether its claim stands.
        return frozenset({"idempotency_running", "budget_held", "insufficient_balance"})

    def expect(self, oracle: Oracle) -> Outcome:
        place = (self.payer.split()[0], self.key)
        former = oracle.claims.get(place)
        now = oracle.now
        times = (now + FREE_AFTER, now + expected.KEPT)
        oracle.claim(place, expected.Claim(self.meaning, self.number, self.broker, *times))
        try:
            return super().expect(oracle)
        except Refused:
            assert former is None or oracle.claims[place] is not former
            del oracle.claims[place]
            raise

    async def act(self, market: Market, now: datetime) -> Outcome:
        broker, hold = market.brokers[self.broker], self._hold(market, now)
        place = Place(market.roster.accounts[self.payer.split()[0]].id, self.key)
        times = (now, now + FREE_AFTER, now + expected.KEPT)
        wanted = Claim(place, bytes([self.meaning]) * 32, hold.call_id, broker.number, *times)
        async with broker.pool.acquire() as connection:
            await self._claim(connection, wanted, now)
            try:
                await broker.batcher.hold(hold)
            except BrokerError:
                await claims.free(connection, place, hold.call_id)
                raise
            if await claims.stands(connection, place, hold.call_id):
                return "held"
        await broker.batcher.settle(ledger.settlement(hold, (), now, None))
        raise Conflict("another runs", code="idempotency_running")

    async def _claim(self, connection: object, wanted: Claim, now: datetime) -> None:
        """As `broker.flows.calls.replay` does."""
        while not await claims.claim(connection, wanted):
            former = await claims.look(connection, wanted.place, now)
            if former is None:
                continue
            if former.stage is Stage.FREE:
                if await claims.take_over(connection, wanted, now):
                    return
                continue
            same = former.request_sha256 == wanted.request_sha256
            code = f"idempotency_{former.stage.value if same else 'conflict'}"
            raise Conflict("no turn", code=code)


@dataclass(frozen=True, kw_only=True)
class MakeQuote(Deed):
    """Rates promised by one or two providers for so many tokens, for some minutes at most."""

    consumer: str
    offers: tuple[tuple[str, int], ...]
    tokens: tuple[int, int]
    lasts_s: int

    @property
    def rates(self) -> dict[str, tuple[int, int, int]]:
        return {provider: RATES[rate] for provider, rate in self.offers}

    def expect(self, oracle: Oracle) -> Outcome:
        until = oracle.now + timedelta(seconds=self.lasts_s)
        return oracle.make_quote(self.number, Quote(self.consumer, self.rates, self.tokens, until))

    async def act(self, market: Market, now: datetime) -> Outcome:
        account = market.roster.accounts[self.consumer].id
        wanted = Requirements(account, Task.CHAT, "auto", self.tokens[0], 1, self.tokens[1])
        offers = tuple(
            Offer(
                endpoint_id=market.roster.endpoints[provider],
                number=place,
                rate=Rate(*rates),
                tokens_out_max=self.tokens[1],
                expected_nanos=0,
                ceiling_nanos=priced(rates, self.tokens),
                score=0.0,
                parts={},
            )
            for place, (provider, rates) in enumerate(self.rates.items())
        )
        promised = Promise(wanted, VERSION, offers)
        async with market.engine.begin() as connection:
            made = await quotes.insert(connection, promised, self.lasts_s, expected.QUOTES_OPEN_MAX)
        market.quotes[self.number] = made.id
        return made.promise.ceiling_nanos


@dataclass(frozen=True, kw_only=True)
class AdmitQuoted(Admit):
    """A call on a quote, which holds the quote's ceiling; a refused one gives the quote back."""

    payer: str = ""
    amount: int = 0
    place: int
    quote: int = -1

    def aim(self, oracle: Oracle) -> Self | None:
        quote = picked(list(oracle.quotes), self.place)
        if quote is None:
            return None
        found = oracle.quotes[quote]
        payer = f"{found.consumer} free"
        return replace(self, quote=quote, payer=payer, amount=found.ceiling)

    def yields_to(self, others: Sequence[Deed], oracle: Oracle) -> frozenset[str]:
        met = any(isinstance(each, AdmitQuoted) and each.quote == self.quote for each in others)
        return frozenset({"quote_gone"} if met else ())

    def expect(self, oracle: Oracle) -> Outcome:
        oracle.use_quote(self.quote, self.number)
        try:
            return super().expect(oracle)
        except Refused:
            oracle.quotes[self.quote].used_by = None
            raise

    async def act(self, market: Market, now: datetime) -> Outcome:
        hold, quote_id = self._hold(market, now), market.quotes[self.quote]
        number = market.brokers[self.broker].number
        async with market.engine.begin() as connection:
            if not await quotes.use(connection, quote_id, hold.call_id, number):
                raise Conflict("used or expired", code="quote_gone")
        try:
            await market.brokers[self.broker].batcher.hold(hold)
        except BrokerError:
            async with market.engine.begin() as connection:
                await quotes.give_back(connection, quote_id, hold.call_id)
            raise
        return "held"


End = Literal["served", "broken", "unrecorded", "above", "unsummed"]
Billed: TypeAlias = tuple[str, tuple[int, int, int], tuple[int, int], int]
"""What one attempt is charged: provider, rates, tokens, and the broker's take in basis points."""


@dataclass(frozen=True, kw_only=True)
class Settle(Deed):
    """The end of a call: what each attempt delivered, in percent of what could be; or nonsense.

    `shares` are provider, percent of the hold, rate and the broker's take in basis points.
    """

    place: int
    broker: int
    end: End
    shares: tuple[tuple[str, int, int, int], ...]
    anew: bool
    """Of a call that is open, if there is one; else of any."""
    call: int = -1
    held: int = 0
    lines: tuple[Billed, ...] = ()

    def aim(self, oracle: Oracle) -> Self | None:
        opened = oracle.open_calls() if self.anew else []
        number = picked(opened or list(oracle.calls), self.place)
        if number is None:
            return None
        held = oracle.calls[number].held
        quoted = [each for each in oracle.quotes.values() if each.used_by == number]
        lines = self._quoted_lines(quoted[0]) if quoted else self._free_lines(held)
        return replace(self, call=number, held=held, lines=lines)

    def _free_lines(self, held: int) -> tuple[Billed, ...]:
        lines = []
        for provider, percent, rate, take in self.shares:
            rates = RATES[rate]
            room = 1_000 * (held * percent // 100 // len(self.shares) - rates[2])
            if room >= 0:
                tokens_in = room // 3 // rates[0] if rates[0] else 0
                tokens_out = (room - tokens_in * rates[0]) // rates[1] if rates[1] else 0
                lines.append((provider, rates, (tokens_in, tokens_out), take))
        return tuple(lines)

    def _quoted_lines(self, quote: Quote) -> tuple[Billed, ...]:
        for provider, percent, _, take in self.shares:
            if provider in quote.rates:
                tokens = (quote.tokens[0] * percent // 100, quote.tokens[1] * percent // 100)
                return ((provider, quote.rates[provider], tokens, take),)
        return ()

    def expect(self, oracle: Oracle) -> Outcome:
        if oracle.calls[self.call].state == "open" and self.end in ("above", "unsummed"):
            raise Refused("settlement_refused")
        lines = []
        for attempt, (provider, rates, tokens, take_bps) in enumerate(self.lines):
            charge = priced(rates, tokens)
            lines.append(Line(attempt, provider, charge, charge * take_bps // 10_000))
        code = None if self.end == "unrecorded" else self.end
        return oracle.settle(self.call, lines, self.broker, code)

    async def act(self, market: Market, now: datetime) -> Outcome:
        return await market.brokers[self.broker].batcher.settle(self._settlement(market, now))

    def _settlement(self, market: Market, now: datetime) -> Settlement:
        hold = market.calls[self.call]
        lines = tuple(
            ledger.line(
                attempt,
                market.roster.endpoints[provider],
                market.roster.accounts[provider].ledger_account,
                tokens,
                (Rate(*rates), VERSION, take_bps),
            )
            for attempt, (provider, rates, tokens, take_bps) in enumerate(self._billed())
        )
        charge = sum(each.charge_nanos for each in lines)
        record = None if self.end == "unrecorded" else self._record(market, hold, charge)
        if self.end == "above":
            return Settlement(hold.call_id, SettlementKind.CAPTURED, charge, now, lines, record)
        if self.end == "unsummed":
            kind, amount = SettlementKind.CAPTURED, hold.amount_nanos
            return Settlement(hold.call_id, kind, amount, now, (), record)
        return ledger.settlement(hold, lines, now, record)

    def _billed(self) -> tuple[Billed, ...]:
        if self.end == "above":
            return ((PROVIDERS[0], (0, 0, self.held + 1), (0, 0), 1_000),)
        return self.lines

    def _record(self, market: Market, hold: Hold, charge: int) -> CallRecord:
        [payer] = [name for name, key_id in market.roster.keys.items() if key_id == hold.key_id]
        return msgspec.structs.replace(
            a_record(hold, charge),
            account_id=market.roster.accounts[payer.split()[0]].id,
            code="served" if self.end == "served" else "broken",
        )


@dataclass(frozen=True, kw_only=True)
class SetBudgets(Deed):
    """New limits for a consumer's tight key, whatever it has spent before."""

    consumer: str
    limits: tuple[int | None, int | None, int | None]

    @property
    def key(self) -> str:
        return f"{self.consumer} tight"

    def expect(self, oracle: Oracle) -> Outcome:
        day, month, total = self.limits
        return oracle.set_budgets(self.key, {"day": day, "month": month, "total": total})

    async def act(self, market: Market, now: datetime) -> Outcome:
        async with market.engine.begin() as connection:
            await budgets.set_budgets(
                connection, market.roster.keys[self.key], Budgets(*self.limits)
            )
        return "set"


@dataclass(frozen=True, kw_only=True)
class Sweep(Deed):
    """The worker gives back what nobody will settle any more."""

    apart_from: ClassVar[frozenset[str]] = frozenset({"Sweep"})

    def expect(self, oracle: Oracle) -> Outcome:
        return list(oracle.sweep())

    async def act(self, market: Market, now: datetime) -> Outcome:
        pool = market.brokers[0].pool
        return [await sweep_expired(pool, now), await release_orphans(pool, grace_s=0.0)]


@dataclass(frozen=True, kw_only=True)
class ChangeLease(Deed):
    """A broker is cut off from the database for a while, as if it had died, or is back."""

    broker: int
    holds: bool

    def expect(self, oracle: Oracle) -> Outcome:
        process = oracle.processes[self.broker]
        if self.holds and not process.leased:
            process.leased, process.listed, process.leased_for = True, True, timedelta()
        elif not self.holds:
            process.leased = False
        return "so"

    async def act(self, market: Market, now: datetime) -> Outcome:
        broker = market.brokers[self.broker]
        if self.holds:
            await broker.take_lease()
        else:
            await broker.lose_lease(market.driver)
        return "so"


@dataclass(frozen=True, kw_only=True)
class PassTime(Deed):
    """Time goes by."""

    time: timedelta

    def aim(self, oracle: Oracle) -> Self | None:
        return self if oracle.elapsed + self.time <= timedelta(days=45) else None

    def expect(self, oracle: Oracle) -> Outcome:
        oracle.pass_time(self.time)
        return "passed"

    async def act(self, market: Market, now: datetime) -> Outcome:
        await clock.advance(market.driver, self.time)
        return "passed"

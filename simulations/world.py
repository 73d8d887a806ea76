"""Everything of a run but the calls: the market's clockwork, and what is written down of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker.core.market import Presence
from pricing.book import FloatArray, IntArray, PriceBook
from pricing.scarcity import price_of
from simulations.broker_side.books import Books
from simulations.broker_side.desk import Desk
from simulations.broker_side.ticker import Ticker
from simulations.chance import generator
from simulations.measured.record import DEMAND_COLUMNS, TICK_COLUMNS, PriceMoves, Run
from simulations.measured.tally import Sample, Tally
from simulations.measured.thinning import Series
from simulations.measured.turns import Turns
from simulations.scenario import Scenario
from simulations.servers.listing import Listing
from simulations.servers.sites import Change
from simulations.servers.strategies import Sight, acts_every_s, band_for

_SUMMED = frozenset({"refused", "served", "offered", "offer_nanos", "worth_nanos"})


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What servers were doing at a tick, as it was; arrays by endpoint number."""

    running: FloatArray
    waiting: FloatArray
    served: FloatArray
    """Since the last tick."""


class World:
    """A scenario brought to life, but for calls and servers, which are the engine's."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.seed = seed
        self.listing = Listing(scenario)
        for number, (_, spec) in enumerate(scenario.endpoints):
            if spec.enters_s <= 0.0:
                self.listing.enter(number)
        self.ticker = Ticker(scenario, self.listing, seed)
        self.desk = Desk(scenario, self.listing, seed)
        self.books = Books(scenario.classes, self.listing.payees)
        size, classes, pacing = self.listing.size, len(scenario.classes), scenario.pacing
        sample = Sample(pacing.kept_calls_max, generator(seed, "sample"))
        self.tally = Tally((classes, size), scenario.warm_up_s, sample)
        # Since the last tick, by class; lists, for they are counted one by one.
        self.offered = [0] * classes
        self.served = [0] * classes
        self.offers = [0.0] * classes
        self.worths = [0.0] * classes
        self._ticks = _series(TICK_COLUMNS, size, pacing.kept_ticks_max)
        self._demand = _series(DEMAND_COLUMNS, classes, pacing.kept_ticks_max)
        self._refused = np.zeros(size)
        self._counted = _Counted(size)
        self._acts = _Acts(scenario, size)
        self._presence: dict[int, Presence] = {}
        self._published: tuple[object, ...] = ()
        self.desk.publish(self.ticker.book, {})

    def change(self, change: Change) -> None:
        """Let an endpoint enter or leave the market; other changes are the server's own."""
        if change.kind == "enter":
            if not self.listing.is_listed(change.number):
                self.listing.enter(change.number)
            self.ticker.newcomer(change.number, change.at_s)
        elif change.kind == "leave":
            self.listing.leave(change.number)

    def tick(self, now_s: float, seen: Seen) -> PriceBook | None:
        """Make one price tick; return the book where calls are to be decided on something new."""
        self._acts.act(now_s, self.listing, self.ticker)
        before = self.ticker.book
        book = self.ticker.tick(now_s, self.desk.pulse)
        self._write_down(now_s, before, seen)
        presence = self.ticker.presence(now_s)
        published = (book.version, self.listing.bands, tuple(sorted(presence)))
        if published == self._published:
            return None
        self._published, self._presence = published, presence
        return book

    def publish(self, book: PriceBook) -> None:
        """Let calls be decided on a book, and on what is on offer."""
        self.desk.publish(book, self._presence)

    def _write_down(self, now_s: float, before: PriceBook, seen: Seen) -> None:
        listing, book, capacity = self.listing, self.ticker.book, self.listing.capacity
        present = listing.bands.present
        refused = self.desk.pulse.refused[: listing.size].astype(float)
        rates = before.matrix(listing.size) * present
        utilisation = seen.running / capacity
        figures = [
            *(rates[0], rates[1], rates[2]),
            np.where(present, self.ticker.load, 0.0),
            utilisation,
            seen.waiting,
            refused - self._refused,
            seen.served,
            present.astype(float),
        ]
        self._refused = refused
        self._ticks.add(now_s, figures)
        counts = (self.offered, self.served, self.offers, self.worths)
        self._demand.add(now_s, np.array(counts, dtype=float))
        for each in (self.offered, self.served, self.offers, self.worths):
            each[:] = [0] * len(each)
        if now_s > self.scenario.warm_up_s:
            prices = (price_of(before, listing.bands), price_of(book, listing.bands))
            self._counted.add(prices, (self.ticker.load, utilisation), present)

    def result(self, ended_s: float, flow: tuple[int, int, int], cpu_s: float) -> Run:
        """What the run returns; `flow` is how many calls arrived, have ended, and are
        found under way still: counted apart, so that one that gets lost is missed."""
        scenario, counted, tick_s = self.scenario, self._counted, self.scenario.prices.tick_s
        histograms = self.tally.histograms()
        places = {each.name: place for place, each in enumerate(scenario.providers)}
        present_s: FloatArray = np.asarray(counted.present * tick_s, dtype=float)
        idle = np.array([each.cost_nanos_per_s for each in self.listing.specs], dtype=float)
        share = np.maximum(counted.present, 1)
        return Run(
            scenario=scenario.name,
            seed=self.seed,
            ended_s=ended_s,
            counted_s=max(ended_s - scenario.warm_up_s, 0.0),
            endpoint_names=scenario.endpoint_names,
            provider_names=tuple(places),
            provider_of=np.array([places[each.name] for each, _ in scenario.endpoints]),
            totals=self.tally.totals(),
            ttft=histograms["ttft"],
            tpot=histograms["tpot"],
            e2e=histograms["e2e"],
            moves=counted.moves(tick_s),
            mean_load=counted.load / share,
            mean_utilisation=counted.utilisation / share,
            present_s=present_s,
            server_cost_nanos=idle * present_s,
            money=self.books.money(),
            arrived=flow[0],
            ended=flow[1],
            under_way=flow[2],
            incidents=tuple(self.ticker.incidents),
            ticks=self._ticks.table("endpoint", TICK_COLUMNS),
            demand=self._demand.table("consumer_class", DEMAND_COLUMNS),
            calls=self.tally.sample(),
            cpu_s=cpu_s,
        )


def _series(columns: object, subjects: int, points_max: int) -> Series:
    assert isinstance(columns, dict)
    names = list(columns)[2:]  # after the moment and the subject
    return Series({name: name in _SUMMED for name in names}, subjects, points_max)


class _Counted:
    """What is counted at every tick after the warm-up, by endpoint."""

    def __init__(self, size: int) -> None:
        self.ticks = 0
        self.squares = np.zeros(size)
        self.reversals: IntArray = np.zeros(size, dtype=np.int64)
        self.load = np.zeros(size)
        self.utilisation = np.zeros(size)
        self.present: IntArray = np.zeros(size, dtype=np.int64)
        self.turns = Turns(size)
        self._direction = np.zeros(size)

    def moves(self, tick_s: float) -> PriceMoves:
        """How restless prices were."""
        return PriceMoves(self.ticks, tick_s, self.squares, self.reversals, self.turns.swings)

    def add(
        self,
        prices: tuple[FloatArray, FloatArray],
        uses: tuple[FloatArray, FloatArray],
        present: NDArray[np.bool_],
    ) -> None:
        """Count a tick: prices before and after it, NaN for none; load and utilisation."""
        self.turns.add(np.log(prices[1]))
        move = np.nan_to_num(np.log(prices[1] / prices[0]))
        direction = np.sign(move)
        self.ticks += 1
        self.squares += move**2
        self.reversals += np.asarray(direction * self._direction < 0.0, dtype=bool)
        self._direction = np.where(direction == 0.0, self._direction, direction)
        self.load += np.where(present, uses[0], 0.0)
        self.utilisation += np.where(present, uses[1], 0.0)
        self.present += present


class _Acts:
    """Lets providers act on their prices, each at its own pace."""

    def __init__(self, scenario: Scenario, size: int) -> None:
        self._endpoints = scenario.endpoints
        self._every_s = [acts_every_s(provider.strategy) for provider, _ in scenario.endpoints]
        self._due_s = [math.inf if each is None else 0.0 for each in self._every_s]
        self._load_sum = np.zeros(size)
        self._ticks: IntArray = np.zeros(size, dtype=np.int64)

    def act(self, now_s: float, listing: Listing, ticker: Ticker) -> None:
        """Let those act whose time has come."""
        self._load_sum += ticker.load
        self._ticks += 1
        due = [
            number
            for number, due_s in enumerate(self._due_s)
            if due_s <= now_s and listing.is_listed(number)
        ]
        if not due:
            return
        price = price_of(ticker.book, listing.bands)
        for number in due:
            provider, spec = self._endpoints[number]
            others = [
                float(price[place])
                for place, (other, each) in enumerate(self._endpoints)
                if other is not provider and each.model == spec.model and price[place] > 0.0
            ]
            mean_load = float(self._load_sum[number] / max(self._ticks[number], 1))
            sight = Sight(now_s, min(others, default=math.inf), mean_load, listing.band(number))
            listing.reprice(number, band_for(provider.strategy, spec, sight))
            self._due_s[number] = now_s + (self._every_s[number] or math.inf)
            self._load_sum[number], self._ticks[number] = 0.0, 0

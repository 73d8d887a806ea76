"""The price tick of a simulation: heartbeats in, price book out, as the live broker does it.

Heartbeat -> Load -> MarketSnapshot -> (state, rates) -> clamped PriceBook -> published
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from broker.core.health.pulse import Pulse
from broker.core.market import Presence
from pricing.book import FloatArray, IntArray, PriceBook
from pricing.choice import Choice, Scope, ensemble_of, in_force
from pricing.classes import Fleet, infer_classes
from pricing.ensemble import Ensemble, EnsembleState
from pricing.fluid import FluidMarket
from pricing.guardrails import answer_ticks, clamp
from pricing.scarcity import fitted, scarcity_of
from pricing.snapshot import Bands, MarketSnapshot, OwnCounts, Reports, utilization
from simulations.chance import generator
from simulations.scenario import Scenario
from simulations.servers.listing import Listing

MISSED_MAX = 3
"""Heartbeats that may be missing before a deployment is taken for down."""
INCIDENTS_MAX = 100
"""The true demand at a moment, over the endpoints by number."""


@dataclass(frozen=True, slots=True, eq=False)
class _Beat:
    """What the agents told at one moment; arrays by number."""

    sent_s: float
    arrived: NDArray[np.bool_]
    running: FloatArray
    waiting: FloatArray


class Ticker:
    """Moves the prices of what is on offer."""

    def __init__(self, scenario: Scenario, listing: Listing, seed: int) -> None:
        self._scenario = scenario
        self._listing = listing
        self._rng = generator(seed, "heartbeats")
        self._mail: deque[_Beat] = deque()
        self._heard_s = np.full(listing.size, -np.inf)
        self._running = np.zeros(listing.size)
        self._waiting = np.zeros(listing.size)
        self._refused: IntArray = np.zeros(listing.size, dtype=np.int64)
        prices = scenario.prices
        self._standard = Choice(
            Scope.MARKET, "", prices.controller, prices.parameters, prices.schedule
        )
        self._standing: dict[tuple[Scope, str], Choice] = {}
        self._bands: Bands | None = None
        self._ensemble: Ensemble
        self._state: EnsembleState | None = None
        self._at_s = 0.0
        self.incidents: list[str] = []
        self.load = np.zeros(listing.size)
        """Of each endpoint, as the controllers were told at the last tick."""
        self.book = PriceBook.from_matrix(1, listing.bands.listed)
        """As of the last tick, whether or not it has been published."""

    def beat(self, now_s: float, told: tuple[FloatArray, FloatArray], up: IntArray) -> None:
        """Send heartbeats from the endpoints in `up`; `told` is (running, waiting), by number."""
        signals, size = self._scenario.signals, self._listing.size
        sent = np.zeros(size, dtype=bool)
        sent[up] = True
        arrived = sent & (self._rng.random(size) >= signals.loss)
        self._mail.append(_Beat(now_s, arrived, *told))

    def newcomer(self, number: int, now_s: float) -> None:
        """An endpoint that enters is taken for up until its heartbeats are missed."""
        self._heard_s[number] = now_s

    def presence(self, now_s: float) -> dict[int, Presence]:
        """Who is taken for down, of those on offer."""
        signals = self._scenario.signals
        oldest_s = now_s - MISSED_MAX * signals.heartbeat_s - signals.delay_s
        silent = np.flatnonzero(self._heard_s < oldest_s)
        return {
            int(number): Presence.DOWN for number in silent if self._listing.is_listed(int(number))
        }

    def tick(self, now_s: float, pulse: Pulse) -> PriceBook:
        """Make one tick; return the book, which is the one of before where nothing moved."""
        self._read_mail(now_s)
        self._plan(now_s)
        dt_s, self._at_s = now_s - self._at_s, now_s
        self.load = self._measured(now_s, dt_s, pulse)
        bands, size = self._listing.bands, self._listing.size
        tick_s = self._scenario.prices.tick_s
        signals_s = self._scenario.signals.delay_s
        delay_ticks = answer_ticks(pulse.service_s[:size], tick_s, signals_s)
        snapshot = MarketSnapshot(
            self._scenario.start_s + now_s, dt_s, self.load, bands, self.book, delay_ticks
        )
        state = self._state or self._ensemble.resume(self.book, bands)
        if any(each.name == "shadow" for each in self._ensemble.groups):
            snapshot = replace(snapshot, fluid=self._fluid(state))
        self._state, proposed = self._ensemble.step(state, snapshot)
        self._tell_incidents()
        limits = self._scenario.prices.guardrails
        book = clamp(self.book, proposed, bands, self.book.version + 1, limits)
        if book.changed(self.book).size:
            self.book = book
        return self.book

    def _read_mail(self, now_s: float) -> None:
        delay_s = self._scenario.signals.delay_s
        while self._mail and self._mail[0].sent_s + delay_s <= now_s:
            beat = self._mail.popleft()
            self._heard_s = np.where(beat.arrived, beat.sent_s, self._heard_s)
            self._running = np.where(beat.arrived, beat.running, self._running)
            self._waiting = np.where(beat.arrived, beat.waiting, self._waiting)

    def _plan(self, now_s: float) -> None:
        """Find out who moves whose prices; the same while choices and what is on offer stand."""
        standing = {(Scope.MARKET, ""): self._standard}
        standing |= in_force(self._scenario.prices.choices, now_s)
        if self._bands is self._listing.bands and standing == self._standing:
            return
        self._bands, self._standing = self._listing.bands, standing
        self._ensemble = ensemble_of(self._listing.members, standing)

    def _measured(self, now_s: float, dt_s: float, pulse: Pulse) -> FloatArray:
        size = self._listing.size
        refused = pulse.refused[:size].copy()
        per_s = (refused - self._refused) / dt_s if dt_s > 0.0 else np.zeros(size)
        self._refused = refused
        own = OwnCounts(pulse.in_flight[:size].astype(float), per_s, pulse.service_s[:size])
        signals = self._scenario.signals
        oldest_s = now_s - MISSED_MAX * signals.heartbeat_s - signals.delay_s
        reports = Reports(self._running, self._waiting, self._heard_s < oldest_s)
        return utilization(own, reports, self._listing.capacity)

    def _fluid(self, state: EnsembleState) -> FluidMarket:
        bands, size = self._listing.bands, self._listing.size
        fleet = Fleet(self._listing.family, np.arange(size), self._listing.capacity)
        elasticity = np.nan_to_num(fitted(state.elasticity, size), nan=1.0)
        scarcity = np.nan_to_num(scarcity_of(self.book, bands))
        return infer_classes(fleet, bands, self.load, scarcity, elasticity)

    def _tell_incidents(self) -> None:
        assert self._state is not None
        for each in self._state.incidents[: INCIDENTS_MAX - len(self.incidents)]:
            names = ", ".join(self._listing.names[number] for number in each.numbers[:20])
            self.incidents.append(f"{self._at_s:.0f} s: {each.controller} {each.reason}: {names}")

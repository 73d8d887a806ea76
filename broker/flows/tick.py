"""The price tick: load in, price book out, by the one process that leads.

Heartbeat -> Load -> MarketSnapshot -> (state, rates) -> clamped PriceBook -> published
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.catalog import Endpoint
from broker.flows.facts import bands_of
from broker.live.beats import BeatSheet
from broker.live.room import Live
from broker.store import prices
from broker.store.away import DATABASE_AWAY
from broker.store.leadership import Leadership
from broker.store.market_id import draw_epoch
from pricing.book import FloatArray, PriceBook
from pricing.controllers import Controller
from pricing.controllers.excess import ExcessLoad
from pricing.guardrails import Guardrails, clamp
from pricing.snapshot import Bands, MarketSnapshot, OwnCounts, Reports, utilization

_log = structlog.get_logger(__name__)

DT_S_MAX: Final = 10.0
"""A tick that comes later than this counts as this long: what happened meanwhile is not known."""
REPUBLISHED_EVERY_S: Final = 10.0
"""A book that stands is told again, for a Valkey that has lost it."""


@dataclass(frozen=True, slots=True)
class TickPolicy:
    """How prices are moved; `name` is stored with each book."""

    name: str = "excess"
    controller: Controller[Any] = field(default_factory=ExcessLoad)
    guardrails: Guardrails = field(default_factory=Guardrails)
    tick_s: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class _Lead:
    """What the leader carries from tick to tick."""

    state: Any
    book: PriceBook
    epoch: int
    at_s: float
    told_at_s: float


class Ticker:
    """Moves the prices of what `listed` returns, while this process leads."""

    def __init__(
        self,
        engine: AsyncEngine,
        leadership: Leadership,
        live: Live,
        listed: Callable[[], Sequence[Endpoint]],
        *,
        clock: Callable[[], datetime],
        policy: TickPolicy | None = None,
    ) -> None:
        self._engine = engine
        self._leadership = leadership
        self._live = live
        self._listed = listed
        self._clock = clock
        self._policy = policy or TickPolicy()
        self._lead: _Lead | None = None

    @property
    def leads(self) -> bool:
        """True while this process moves the prices, as of its last step."""
        return self._lead is not None

    async def run(self, now_s: Callable[[], float]) -> None:
        """Step once a tick until cancelled, then give up the lead. `now_s` is monotonic."""
        try:
            while True:
                begun_s = now_s()
                try:
                    await self.step(begun_s)
                except Exception:  # one bad tick must not stop the prices for good
                    _log.exception("a price tick failed")
                    self._lead = None
                await asyncio.sleep(max(0.0, begun_s + self._policy.tick_s - now_s()))
        finally:
            self.close()

    def close(self) -> None:
        """Give up the lead at once, so that another process can take it."""
        self._lead = None
        self._leadership.release()

    async def step(self, now_s: float) -> PriceBook | None:
        """Make one tick; return the new book, None when there is none or another leads."""
        if not await self._leadership.held():
            self._lead = None
            return None
        try:
            return await self._move(now_s)
        except prices.VersionTaken as taken:
            _log.warning("this process stops leading the price tick", reason=str(taken))
            self.close()
        except DATABASE_AWAY as error:
            # Whether the book was stored is not known: the next step resumes from what is.
            _log.warning("the prices were not stored", reason=str(error))
            self._lead = None
        return None

    async def _move(self, now_s: float) -> PriceBook | None:
        endpoints = self._listed()
        if not endpoints:
            return None  # an empty book would take the price of all, should this be a mistake
        bands = bands_of(endpoints)
        lead = self._lead or await self._resume(bands, now_s)
        load = self._load(endpoints, len(bands))
        dt_s = min(max(now_s - lead.at_s, 0.0), DT_S_MAX)
        snapshot = MarketSnapshot(now_s, dt_s, load, bands)
        state, proposed = self._policy.controller.step(lead.state, snapshot)
        version = lead.book.version + 1
        clamped = clamp(lead.book, proposed, bands, version, self._policy.guardrails)
        if clamped.misbehaving.size:
            _log.error("a controller proposed nonsense", endpoints=clamped.misbehaving.tolist())
        changed = clamped.book.changed(lead.book).tolist()
        book = clamped.book if changed else lead.book
        if changed:
            loads = [(each, float(load[each]) if each < load.size else 0.0) for each in changed]
            async with self._engine.begin() as connection:
                await prices.insert_book(connection, book, self._policy.name, loads, self._clock())
        told_at_s = lead.told_at_s
        if changed or now_s - told_at_s >= REPUBLISHED_EVERY_S:
            await self._live.books.publish(book, lead.epoch)
            told_at_s = now_s
        self._lead = _Lead(state, book, lead.epoch, now_s, told_at_s)
        return book if changed else None

    async def _resume(self, bands: Bands, now_s: float) -> _Lead:
        """Go on from the last book, whoever published it."""
        async with self._engine.connect() as connection:
            book = await prices.latest_book(connection)
            # Above what was told before, should the clock of a new database server be behind.
            epoch = max(await draw_epoch(connection), self._live.books.epoch + 1)
        state = self._policy.controller.resume(book, bands)
        return _Lead(state, book, epoch, now_s, now_s - REPUBLISHED_EVERY_S)

    def _load(self, endpoints: Sequence[Endpoint], size: int) -> FloatArray:
        """Load by endpoint number: its deployment's, which all endpoints on it share."""
        deployments = {each.deployment.number: each.deployment for each in endpoints}
        width = max(deployments, default=-1) + 1
        counts = self._live.loads.total(width)
        capacity = np.ones(width, dtype=np.float64)
        for number, deployment in deployments.items():
            capacity[number] = deployment.capacity
        own = OwnCounts(counts.in_flight.astype(np.float64), counts.refused_per_s, counts.service_s)
        numbers = {each.deployment.id: each.deployment.number for each in endpoints}
        reports = _reports(self._live.beats.sheet(), numbers, width)
        by_deployment = utilization(own, reports, capacity)
        load = np.zeros(size, dtype=np.float64)
        for each in endpoints:
            load[each.number] = by_deployment[each.deployment.number]
        return load


def _reports(sheet: BeatSheet, numbers: dict[Any, int], width: int) -> Reports:
    running = np.zeros(width, dtype=np.float64)
    waiting = np.zeros(width, dtype=np.float64)
    stale = np.ones(width, dtype=bool)
    for deployment_id, number in numbers.items():
        beat = sheet.beats.get(deployment_id)
        if beat is not None and beat.running is not None and sheet.is_fresh(beat):
            running[number] = beat.running
            waiting[number] = beat.waiting or 0
            stale[number] = False
    return Reports(running, waiting, stale)

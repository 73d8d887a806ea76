"""The price tick: load in, price book out, by the one process that leads.

Heartbeat -> Load -> MarketSnapshot -> (state, rates) -> clamped PriceBook -> published
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import numpy as np
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.catalog import Endpoint
from broker.flows.market.choose_pricing import choice_of
from broker.flows.market.measure import OF_ENDPOINTS, Ground, ground_of, infer_fluid, measure
from broker.flows.market.tell_incidents import tell_incidents
from broker.flows.process.outage import Outage
from broker.live.room import Live
from broker.store.away import DATABASE_AWAY
from broker.store.market import prices, pricing_choices
from broker.store.market.leadership import Leadership
from broker.store.market.market_id import draw_epoch
from broker.store.market.pricing_choices import StoredChoice
from pricing.book import FloatArray, IntArray, PriceBook, ProposedRates
from pricing.choice import Choice, Scope, ensemble_of, in_force
from pricing.ensemble import Ensemble, EnsembleState
from pricing.guardrails import clamp
from pricing.scarcity import fitted
from pricing.snapshot import MarketSnapshot

_log = structlog.get_logger(__name__)

TICK_S: Final = 1.0
DT_S_MAX: Final = 10.0
"""A tick that comes later than this counts as this long: what happened meanwhile is not known."""
REPUBLISHED_EVERY_S: Final = 10.0
"""A book that stands is told again, for a Valkey that has lost it."""
LOGGED_MAX: Final = 20
"""Endpoint numbers in one line of the log."""
SHADOW: Final = "shadow"
"""The controller that wants to know who competes with whom."""


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """Who moves whose prices: what it was made of, and what came of it."""

    ground: Ground
    standing: dict[tuple[Scope, str], Choice]
    ensemble: Ensemble

    @property
    def names(self) -> tuple[str, ...]:
        """The controllers at work."""
        return tuple(sorted({each.name for each in self.ensemble.groups}))


@dataclass(frozen=True, slots=True, eq=False)
class _Lead:
    """What the leader carries from tick to tick."""

    state: EnsembleState
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
    ) -> None:
        self._engine = engine
        self._leadership = leadership
        self._live = live
        self._listed = listed
        self._clock = clock
        self._lead: _Lead | None = None
        self._plan: _Plan | None = None
        self._outage = Outage(
            "prices_not_stored",
            "prices_stored_again",
            "prices stand still until PostgreSQL takes them: see to it and to its disk",
        )
        self._choices: tuple[list[StoredChoice], list[Choice]] = ([], [])

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
                await asyncio.sleep(max(0.0, begun_s + TICK_S - now_s()))
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
            book = await self._move(now_s)
            self._outage.over()
            return book
        except prices.VersionTaken as taken:
            _log.warning("this process stops leading the price tick", reason=str(taken))
            self.close()
        except DATABASE_AWAY as error:
            # Whether the book was stored is not known: the next step resumes from what is.
            self._outage.met(error)
            self._lead = None
        return None

    async def _move(self, now_s: float) -> PriceBook | None:
        endpoints = tuple(self._listed())
        if not endpoints:
            return None  # an empty book would take the price of all, should this be a mistake
        now = self._clock()
        plan = self._plan = await self._planned(endpoints, now)
        bands = plan.ground.bands
        lead = self._lead or await self._resume(plan, now_s)
        dt_s = min(max(now_s - lead.at_s, 0.0), DT_S_MAX)
        seen = measure(plan.ground, self._live, TICK_S)
        snapshot = MarketSnapshot(
            now.timestamp(), dt_s, seen.load, bands, lead.book, seen.delay_ticks
        )
        state, proposed = await _stepped(plan, lead.state, snapshot)
        clamped = clamp(lead.book, proposed, bands, lead.book.version + 1)
        moved = clamped.changed(lead.book)
        changed = moved.size > 0
        book = clamped if changed else lead.book
        if changed or state.incidents:
            await self._store(plan, state, book, (moved, _loads(moved, seen.load)))
        told_at_s = lead.told_at_s
        if changed or now_s - told_at_s >= REPUBLISHED_EVERY_S:
            await self._live.books.publish(book, lead.epoch)
            told_at_s = now_s
        self._lead = _Lead(state, book, lead.epoch, now_s, told_at_s)
        return book if changed else None

    async def _planned(self, endpoints: tuple[Endpoint, ...], now: datetime) -> _Plan:
        """Return who moves whose prices now; the same plan while catalog and choices stand."""
        plan = self._plan
        ground = plan.ground if plan else ground_of(endpoints)
        stands = ground.endpoints == endpoints
        async with self._engine.connect() as connection:
            stored = await pricing_choices.list_open(connection, now)
        if stored != self._choices[0]:
            self._choices = (stored, _understood(stored))
        standing = in_force(self._choices[1], now.timestamp())
        if plan is not None and stands and plan.standing == standing:
            return plan
        ground = ground if stands else ground.moved(endpoints)
        made = _Plan(ground, standing, ensemble_of(endpoints, standing, OF_ENDPOINTS))
        if plan is None or (plan.names, plan.standing) != (made.names, standing):
            _log.info("the prices are moved by", controllers=made.names, choices=len(standing))
        return made

    async def _store(
        self,
        plan: _Plan,
        state: EnsembleState,
        book: PriceBook,
        changed: tuple[IntArray, FloatArray],
    ) -> None:
        """Store what changed, with the load of each, and tell of controllers that were replaced."""
        for each in state.incidents:
            _log.error(
                "a controller was replaced by the posted price",
                controller=each.controller,
                reason=each.reason,
                endpoints=each.numbers.tolist()[:LOGGED_MAX],
                count=each.numbers.size,
            )
        async with self._engine.begin() as connection:
            now = self._clock()
            if changed[0].size:
                await prices.insert_book(connection, book, ",".join(plan.names), changed, now)
            await tell_incidents(connection, state.incidents, plan.ground.endpoints, now)

    async def _resume(self, plan: _Plan, now_s: float) -> _Lead:
        """Go on from the last book, whoever published it."""
        async with self._engine.connect() as connection:
            book = await prices.latest_book(connection)
            # Above what was told before, should the clock of a new database server be behind.
            epoch = max(await draw_epoch(connection), self._live.books.epoch + 1)
        state = plan.ensemble.resume(book, plan.ground.bands)
        return _Lead(state, book, epoch, now_s, now_s - REPUBLISHED_EVERY_S)


async def _stepped(
    plan: _Plan, state: EnsembleState, snapshot: MarketSnapshot
) -> tuple[EnsembleState, ProposedRates]:
    """Step the controllers; shadow prices of a fleet beside the event loop, for they take long."""
    if SHADOW not in plan.names or snapshot.book is None:
        return plan.ensemble.step(state, snapshot)
    elasticity = fitted(state.elasticity, len(snapshot.bands))
    elasticity = np.nan_to_num(elasticity, nan=1.0)
    fluid = infer_fluid(plan.ground, snapshot.load, snapshot.book, elasticity)
    return await asyncio.to_thread(plan.ensemble.step, state, replace(snapshot, fluid=fluid))


def _understood(stored: Sequence[StoredChoice]) -> list[Choice]:
    """Return the choices without those that this version does not understand."""
    understood = []
    for each in stored:
        try:
            understood.append(choice_of(each))
        except ValueError as error:
            _log.error("a choice of controller is passed over", id=str(each.id), reason=str(error))
    return understood


def _loads(moved: IntArray, load: FloatArray) -> FloatArray:
    known = moved[moved < load.size]  # numbers ascend
    seen = np.zeros(moved.size)
    seen[: known.size] = load[known]
    return seen

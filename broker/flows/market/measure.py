"""Measures the market for the price tick: load, delay, and who competes with whom.

What the catalog alone says (bands, places, families) is laid out once and kept while the catalog
stands; what moves by the second is read off the live counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from broker.core.catalog import Endpoint, Task
from broker.flows.market.facts import Banded, Change
from broker.live.room import Live
from broker.live.sheet import UNTOLD, BeatSheet, Roster
from pricing.book import FloatArray, IntArray, PriceBook
from pricing.choice import Member, Scope, Subjects
from pricing.classes import Fleet, infer_classes
from pricing.fluid import FluidMarket
from pricing.guardrails import answer_ticks
from pricing.scarcity import scarcity_of
from pricing.snapshot import Bands, OwnCounts, Reports, utilization

FLEET_MAX: Final = 300
"""Of a larger market no fleet-wide shadow prices are worked out: it would hold up the tick."""


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """What a catalog says of its endpoints; arrays by endpoint number, -1 for one not in use."""

    banded: Banded
    deployment: IntArray
    """The deployment's number."""
    family: IntArray
    """The same for endpoints of one model that do the same tasks."""
    families: Mapping[Any, int]
    """Those that were given so far, by model and tasks."""
    capacity: FloatArray
    """Slots by deployment number."""
    roster: Roster
    """The deployments, whose beats say how busy they are."""

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All of the catalog."""
        return self.banded.endpoints

    @property
    def bands(self) -> Bands:
        """Their price bands."""
        return self.banded.bands

    def moved(self, endpoints: tuple[Endpoint, ...]) -> Ground:
        """Lay out another catalog by this one: nearly all stand."""
        change = Change.between(self.endpoints, endpoints)
        if len(self.families) > len(endpoints) + len(self.families) // 2:
            return ground_of(endpoints)  # most families are no more
        banded = self.banded.moved(endpoints, change)
        size, families = len(banded.bands), dict(self.families)
        deployment, family = _fitted(self.deployment, size, -1), _fitted(self.family, size, -1)
        left = [number for number in change.gone if number < size]
        deployment[left] = family[left] = -1
        servers = {each.deployment.number: each.deployment for each in change.fresh}
        capacity = _fitted(self.capacity, max([self.capacity.size, *(at + 1 for at in servers)]), 1)
        known = {*self.deployment.tolist()}
        for number, server in servers.items():
            capacity[number] = server.capacity
        for each in change.fresh:
            deployment[each.number] = each.deployment.number
            family[each.number] = families.setdefault(_family_of(each), len(families))
        stands = not change.gone and servers.keys() <= known
        roster = self.roster if stands else _roster_of(endpoints)
        return Ground(banded, deployment, family, families, capacity, roster)


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """By endpoint number: load over capacity, and ticks from a price to the load it causes."""

    load: FloatArray
    delay_ticks: FloatArray


def ground_of(endpoints: Sequence[Endpoint]) -> Ground:
    """Lay out a catalog."""
    nothing = np.zeros(0, dtype=np.int64)
    empty = Ground(Banded.of(()), nothing, nothing, {}, np.zeros(0), Roster({}))
    return empty.moved(tuple(endpoints))


def _family_of(endpoint: Endpoint) -> tuple[str, frozenset[Task]]:
    return endpoint.model, endpoint.tasks


def _roster_of(endpoints: Sequence[Endpoint]) -> Roster:
    deployments = {each.deployment.number: each.deployment for each in endpoints}
    return Roster({each.id: each.number for each in deployments.values()})


def _fitted(array: NDArray[Any], size: int, filler: float) -> NDArray[Any]:
    fitted = np.full(size, filler, dtype=array.dtype)
    fitted[: array.size] = array[:size]
    return fitted


def member_of(endpoint: Endpoint) -> Member:
    """Return what a choice of controller goes by."""
    return Member(
        endpoint.number, endpoint.name, endpoint.deployment.provider, _best_domain(endpoint)
    )


def _best_domain(endpoint: Endpoint) -> str:
    return max(sorted(endpoint.domains), key=endpoint.domains.__getitem__, default="")


OF_ENDPOINTS: Final[Subjects] = {
    Scope.ENDPOINT: attrgetter("name"),
    Scope.PROVIDER: attrgetter("deployment.provider"),
    Scope.DOMAIN: _best_domain,
}
"""The same, of endpoints themselves: ten thousand members would take 1 MB."""


def measure(ground: Ground, live: Live, tick_s: float) -> Measured:
    """Read load and delay of each endpoint: its deployment's, which all endpoints on it share.

    The delay is what the gain guard goes by, see `pricing.guardrails.answer_ticks`.
    """
    counts = live.loads.total(ground.capacity.size)
    own = OwnCounts(counts.in_flight.astype(np.float64), counts.refused_per_s, counts.service_s)
    reports = _reports(live.beats.sheet(), ground.roster, ground.capacity.size)
    load = utilization(own, reports, ground.capacity)
    delay_ticks = answer_ticks(counts.service_s, tick_s)
    used = ground.deployment >= 0
    at = np.where(used, ground.deployment, 0)
    return Measured(np.where(used, load[at], 0.0), np.where(used, delay_ticks[at], 1.0))


def infer_fluid(
    ground: Ground, load: FloatArray, book: PriceBook, elasticity: FloatArray
) -> FluidMarket | None:
    """Infer who asks for what from today's load and prices; None where the fleet is too large."""
    if len(ground.endpoints) > FLEET_MAX:
        return None
    fleet = Fleet(ground.family, np.maximum(ground.deployment, 0), ground.capacity)
    scarcity = np.nan_to_num(scarcity_of(book, ground.bands))
    return infer_classes(fleet, ground.bands, load, scarcity, elasticity)


def _reports(sheet: BeatSheet, roster: Roster, width: int) -> Reports:
    running = np.zeros(width, dtype=np.float64)
    waiting = np.zeros(width, dtype=np.float64)
    stale = np.ones(width, dtype=bool)
    seats, numbers = roster.heard(sheet)
    # Field by field: to pick whole rows takes twenty times as long.
    calls, queue = sheet.rows["running"][seats], sheet.rows["waiting"][seats]
    told = sheet.fresh()[seats] & (calls >= 0) & (queue >= UNTOLD)
    at = numbers[told]
    running[at], waiting[at], stale[at] = calls[told], np.maximum(queue[told], 0), False
    return Reports(running, waiting, stale)

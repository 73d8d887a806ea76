"""Several controllers in one step, each for its own endpoints, and a stand-in for those who fail.

It is a controller like any other. Each group's controller sees its own endpoints alone; who changes
group goes on from the price in force. What a controller proposes must be finite and in band: where
it is not, or where it raises, the endpoint has its posted price for a while, and an incident says
so. The ensemble also learns how demand answers to price, which is what the gain guard needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pricing.book import FloatArray, IntArray, PriceBook, ProposedRates
from pricing.controllers import Controller
from pricing.demand import DemandState, ElasticityEstimator
from pricing.scarcity import fitted, price_of
from pricing.schedule import Schedule, scheduled
from pricing.snapshot import Bands, MarketSnapshot

BENCHED_S = 600.0
"""How long an endpoint has its posted price before its controller is tried again."""
WINDOW_S = 30.0
"""Demand is judged by its mean over so long."""
ELASTICITY_LEAST, ELASTICITY_MOST = 1.0, 20.0
"""What the gain guard takes demand's answer for lies between these."""
_SLACK = 1e-9
"""A proposal may miss its band by this share, which is rounding."""


def _cautious() -> ElasticityEstimator:
    return ElasticityEstimator(prior=1.5, prior_weight=0.05)


@dataclass(frozen=True, slots=True)
class Group:
    """A controller for some endpoints; `key` is what its state is kept by."""

    key: str
    name: str
    controller: Controller[Any]
    schedule: Schedule | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Incident:
    """A controller was replaced by the posted price for these endpoints, and why."""

    controller: str
    reason: str
    numbers: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A group's own state, and whose it is: arrays in it are in the order of `numbers`."""

    numbers: IntArray
    state: Any
    source: Bands
    """The bands of the whole market, from which `bands` were cut."""
    bands: Bands
    edges: tuple[FloatArray, FloatArray]
    """What a proposal must not be below, and not above."""


@dataclass(frozen=True, slots=True, eq=False)
class EnsembleState:
    """`incidents` are those of the last step."""

    parts: Mapping[str, Part]
    demand: DemandState
    elasticity: FloatArray
    """What the gain guard takes demand's answer for, as of the last window."""
    benched_until_s: FloatArray
    book: PriceBook
    """What newcomers go on from, where a snapshot does not say."""
    incidents: tuple[Incident, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """The controller. `group_of` gives each endpoint number its place in `groups`; those beyond its
    end are in group 0, those below zero have their posted price."""

    groups: tuple[Group, ...]
    group_of: IntArray
    estimator: ElasticityEstimator = field(default_factory=_cautious)

    @classmethod
    def of(
        cls, controller: Controller[Any], name: str = "", schedule: Schedule | None = None
    ) -> Ensemble:
        """One controller for all, with what an ensemble adds."""
        name = name or type(controller).__name__.lower()
        group = Group(name, name, controller, schedule)
        return cls((group,), np.zeros(0, dtype=np.int64))

    def resume(self, book: PriceBook, bands: Bands) -> EnsembleState:  # noqa: ARG002 - a protocol
        """The state in which every group is going to resume from this book at its first step."""
        nobody = np.zeros(0)
        return EnsembleState({}, self.estimator.start(0), nobody, nobody, book)

    def step(
        self, state: EnsembleState, snapshot: MarketSnapshot
    ) -> tuple[EnsembleState, ProposedRates]:
        """One tick for all endpoints; the state may be that of another ensemble."""
        bands, size = snapshot.bands, len(snapshot.bands)
        demand, elasticity = self._observed(state, snapshot)
        if snapshot.elasticity is None:
            snapshot = replace(snapshot, elasticity=elasticity)
        book = state.book if snapshot.book is None else snapshot.book
        until_s = np.nan_to_num(fitted(state.benched_until_s, size), nan=-np.inf)
        playing = bands.present & ~(until_s > snapshot.at_s)
        group_of = _grouped(self.group_of, size)
        rates = None
        parts: dict[str, Part] = {}
        incidents: list[Incident] = []
        for place, group in enumerate(self.groups):
            numbers = np.flatnonzero(playing & (group_of == place))
            if not numbers.size:
                continue
            before = (state.parts.get(group.key), book)
            part, proposed, failed = _played(group, before, numbers, snapshot)
            incidents += failed
            if part is not None:
                parts[group.key] = part
            rates = _placed(rates, proposed, numbers, bands)
        for incident in incidents:
            until_s[incident.numbers] = snapshot.at_s + BENCHED_S
        if rates is None:
            rates = bands.listed.astype(np.float64)
        after = EnsembleState(parts, demand, elasticity, until_s, book, tuple(incidents))
        return after, ProposedRates(rates)

    def _observed(
        self, state: EnsembleState, snapshot: MarketSnapshot
    ) -> tuple[DemandState, FloatArray]:
        """What is known of demand, and the elasticity of it that is safe to go by."""
        demand, size = state.demand, len(snapshot.bands)
        if snapshot.book is not None:
            price = price_of(snapshot.book, snapshot.bands)
            demand = self.estimator.watch(demand, price, snapshot.load, snapshot.dt_s)
        if demand.elapsed_s < WINDOW_S and state.elasticity.size == size:
            return demand, state.elasticity
        if demand.elapsed_s >= WINDOW_S:
            demand = self.estimator.close(demand)
        known = self.estimator.estimate(demand)
        cautious = np.clip(known.mean + known.error, ELASTICITY_LEAST, ELASTICITY_MOST)
        most = fitted(cautious, size)
        return demand, np.nan_to_num(most, nan=ELASTICITY_MOST)


def _grouped(group_of: IntArray, size: int) -> IntArray:
    groups = np.zeros(size, dtype=np.int64)
    shared = min(size, group_of.size)
    groups[:shared] = group_of[:shared]
    return groups


def _placed(
    rates: FloatArray | None, proposed: FloatArray, numbers: IntArray, bands: Bands
) -> FloatArray:
    """The rates of all with those of a group in their places, which so far are the posted ones."""
    if numbers.size == len(bands):
        return proposed
    placed = bands.listed.astype(np.float64) if rates is None else rates
    for row, group in zip(placed, proposed, strict=True):
        row[numbers] = group
    return placed


def _played(
    group: Group,
    before: tuple[Part | None, PriceBook],
    numbers: IntArray,
    snapshot: MarketSnapshot,
) -> tuple[Part | None, FloatArray, list[Incident]]:
    """One group's step: its part (None when it failed as a whole), its rates, its incidents."""
    part, book = before
    same = part is not None and np.array_equal(part.numbers, numbers)
    alone, edges = _cut(part if same else None, numbers, snapshot.bands)
    played = alone
    if group.schedule is not None:
        played = scheduled(alone, group.schedule.factor_at(snapshot.at_s))
    try:
        if part is not None and same:
            state = part.state
        else:
            fresh = group.controller.resume(book.only(numbers), played)
            state = fresh if part is None else _merged(part, numbers, fresh)
        state, proposed = group.controller.step(state, snapshot.only(numbers, played))
        sound = _sound(proposed.rates, edges)
    except Exception as error:  # a broken controller must not stop the prices of all
        reason = f"raised {type(error).__name__}: {error}"
        return None, alone.listed.astype(np.float64), [Incident(group.name, reason, numbers)]
    rates, incidents = proposed.rates, []
    if not sound.all():
        incidents = _told(group, rates, sound, numbers)
        rates = np.where(sound, rates, alone.listed)
    return Part(numbers, state, snapshot.bands, alone, edges), rates, incidents


def _cut(
    part: Part | None, numbers: IntArray, source: Bands
) -> tuple[Bands, tuple[FloatArray, FloatArray]]:
    """The bands of these numbers and their edges; `part` has them from before, if it is theirs."""
    if part is not None and part.source is source:
        return part.bands, part.edges
    bands = source if numbers.size == len(source) else source.only(numbers)
    floor = np.asarray(bands.floor * (1.0 - _SLACK), dtype=np.float64)
    ceiling = np.asarray(bands.ceiling * (1.0 + _SLACK), dtype=np.float64)
    return bands, (floor, ceiling)


def _told(
    group: Group, rates: FloatArray, sound: NDArray[np.bool_], numbers: IntArray
) -> list[Incident]:
    finite = np.isfinite(rates).all(axis=0)
    reasons = {"proposed no number": ~finite & ~sound, "left the band": finite & ~sound}
    return [
        Incident(group.name, reason, numbers[bad]) for reason, bad in reasons.items() if bad.any()
    ]


def _sound(rates: FloatArray, edges: tuple[FloatArray, FloatArray]) -> NDArray[np.bool_]:
    """Whose rates are numbers within the band; for what is not priced, anything will do."""
    lowest, highest = edges
    if rates.shape != lowest.shape:
        raise ValueError(f"proposed {rates.shape} for bands of {lowest.shape}")
    within = (rates >= lowest) & (rates <= highest)
    if not within.all():
        within |= highest == 0.0
    return np.asarray(within.all(axis=0), dtype=np.bool_)


def _merged(part: Part, numbers: IntArray, fresh: Any) -> Any:
    """The group's state for other numbers than before: old members keep what they had."""
    _, old, new = np.intersect1d(part.numbers, numbers, assume_unique=True, return_indices=True)
    return _carried(part.state, fresh, (old, new, part.numbers.size, numbers.size))


def _carried(before: Any, fresh: Any, moves: tuple[IntArray, IntArray, int, int]) -> Any:
    """`fresh`, with what `before` holds of the endpoints that are in both."""
    old, new, size_before, size = moves
    if isinstance(fresh, np.ndarray):
        if fresh.shape[-1:] != (size,) or before.shape[-1:] != (size_before,):
            return before
        carried = fresh.copy()
        carried[..., new] = before[..., old]
        return carried
    if is_dataclass(fresh) and type(fresh) is type(before) and not isinstance(fresh, type):
        parts = {
            each.name: _carried(getattr(before, each.name), getattr(fresh, each.name), moves)
            for each in fields(fresh)
        }
        return replace(fresh, **parts)
    return before

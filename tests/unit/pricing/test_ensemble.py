from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from pricing.book import FloatArray, PriceBook, ProposedRates
from pricing.controllers.excess import ExcessLoad
from pricing.controllers.pi import ProportionalIntegral
from pricing.controllers.posted import Posted
from pricing.controllers.revenue import RevenueSearch
from pricing.ensemble import BENCHED_S, Ensemble, EnsembleState, Group
from pricing.schedule import schedule_of
from pricing.snapshot import Bands, MarketSnapshot
from tests.unit.pricing.markets import BY_CALL, TOKENS, bands

OF = bands(TOKENS, TOKENS, BY_CALL, TOKENS)
LISTED = PriceBook.from_matrix(1, OF.listed)


@dataclass(frozen=True)
class Faulty:
    """Proposes the list price, but for what a test has it do wrong."""

    factor: float = 1.0
    shape: int = 3
    error: Exception | None = None

    def resume(self, book: PriceBook, bands: Bands) -> None:
        return None

    def step(self, state: None, snapshot: MarketSnapshot) -> tuple[None, ProposedRates]:
        if self.error is not None:
            raise self.error
        rates = snapshot.bands.listed.astype(np.float64)
        rates[0, -1] *= self.factor
        return None, ProposedRates(rates[: self.shape])


def group(controller: object, key: str, schedule: object = None) -> Group:
    return Group(key, key, controller, schedule)  # type: ignore[arg-type]


def moment(
    load: float = 1.5, at_s: float = 0.0, of: Bands = OF, book: PriceBook | None = None
) -> MarketSnapshot:
    return MarketSnapshot(at_s, 1.0, np.full(len(of), load), of, book)


def fresh(ensemble: Ensemble, of: Bands = OF) -> EnsembleState:
    return ensemble.resume(PriceBook.from_matrix(1, of.listed), of)


EXCESS, PI = ExcessLoad(k_s=10.0), ProportionalIntegral(kp=0.3)
MIXED = Ensemble(
    (group(EXCESS, "excess"), group(PI, "pi"), group(Posted(), "posted")), np.array([0, 1, 2, 1])
)


def test_each_endpoint_has_the_price_of_its_own_controller() -> None:
    state = fresh(MIXED)
    excess, pi = EXCESS.resume(LISTED, OF), PI.resume(LISTED, OF)
    for at in range(5):
        now = moment(at_s=float(at))
        state, proposed = MIXED.step(state, now)
        excess, by_excess = EXCESS.step(excess, now)
        pi, by_pi = PI.step(pi, now)
    np.testing.assert_array_equal(proposed.rates[:, 0], by_excess.rates[:, 0])
    np.testing.assert_array_equal(proposed.rates[:, [1, 3]], by_pi.rates[:, [1, 3]])
    np.testing.assert_array_equal(proposed.rates[:, 2], OF.listed[:, 2])


def test_one_controller_for_all_is_that_controller() -> None:
    ensemble, state, alone = Ensemble.of(EXCESS), None, EXCESS.resume(LISTED, OF)
    state = fresh(ensemble)
    for load in (1.0, 3.0, 0.2):
        state, proposed = ensemble.step(state, moment(load))
        alone, own = EXCESS.step(alone, moment(load))
        np.testing.assert_array_equal(proposed.rates, own.rates)


def test_those_of_no_group_have_their_posted_price() -> None:
    ensemble = Ensemble((group(EXCESS, "excess"),), np.array([0, -1, 0]))
    state = fresh(ensemble)
    for _ in range(3):
        state, proposed = ensemble.step(state, moment())
    np.testing.assert_array_equal(proposed.rates[:, 1], OF.listed[:, 1])
    assert (proposed.rates[:, 3] > OF.listed[:, 3]).any()  # beyond the end: group 0


def test_who_changes_group_goes_on_from_the_price_in_force_and_nobody_else_notices() -> None:
    state, twin = fresh(MIXED), fresh(MIXED)
    for at in range(8):
        state, before = MIXED.step(state, moment(at_s=float(at)))
        twin, _ = MIXED.step(twin, moment(at_s=float(at)))
    book = PriceBook.from_matrix(9, np.rint(before.rates).astype(np.int64))
    moved = replace(MIXED, group_of=np.array([1, 1, 2, 0]))
    _, after = moved.step(state, moment(0.7, 8.0, book=book))
    _, unmoved = MIXED.step(twin, moment(0.7, 8.0, book=book))
    np.testing.assert_allclose(after.rates[:, [0, 3]], book.matrix()[:, [0, 3]], rtol=1e-6)
    np.testing.assert_array_equal(after.rates[:, [1, 2]], unmoved.rates[:, [1, 2]])


def test_a_state_with_states_inside_is_carried_as_well() -> None:
    search = RevenueSearch(half_s=2.0)
    two = Ensemble((group(search, "a"), group(Posted(), "b")), np.array([0, 0, 1, 1]))
    state = fresh(two)
    for at in range(20):
        state, _ = two.step(state, moment(0.4 + 0.1 * (at % 3), float(at)))
    knew = state.parts["a"].state
    three = replace(two, group_of=np.array([1, 0, 0, 1]))
    state, _ = three.step(state, moment(0.4, 20.0))
    knows = state.parts["a"].state
    assert state.parts["a"].numbers.tolist() == [1, 2]
    assert knows.demand.sum_xx[0] == knew.demand.sum_xx[1] > 0.0
    assert knows.demand.sum_xx[1] == 0.0
    assert knows.rounds.tolist() == [knew.rounds[1], 0.0]


@pytest.mark.parametrize(
    ("faulty", "reason", "numbers"),
    [
        (Faulty(factor=math.nan), "proposed no number", [3]),
        (Faulty(factor=math.inf), "proposed no number", [3]),
        (Faulty(factor=1e6), "left the band", [3]),
        (Faulty(factor=4.001), "left the band", [3]),
        (Faulty(factor=0.499), "left the band", [3]),
        (Faulty(factor=-1.0), "left the band", [3]),
        (Faulty(shape=2), "raised ValueError: proposed (2, 2)", [1, 3]),
        (Faulty(error=KeyError("lost")), "raised KeyError: 'lost'", [1, 3]),
    ],
)
def test_who_misbehaves_is_replaced_by_the_posted_price_and_told(
    faulty: Faulty, reason: str, numbers: list[int]
) -> None:
    ensemble = replace(MIXED, groups=(MIXED.groups[0], group(faulty, "faulty"), MIXED.groups[2]))
    state = fresh(ensemble)
    state, proposed = ensemble.step(state, moment())
    (incident,) = state.incidents
    assert incident.controller == "faulty"
    assert incident.reason.startswith(reason)
    assert incident.numbers.tolist() == numbers
    np.testing.assert_array_equal(proposed.rates[:, [1, 3]], OF.listed[:, [1, 3]])
    for at in range(1, 6):
        state, proposed = ensemble.step(state, moment(at_s=float(at)))
        told = [number for each in state.incidents for number in each.numbers]
        assert not set(told) & set(numbers), "told once"
    assert proposed.rates[0, 0] > OF.listed[0, 0], "the others go on"


def test_an_incident_names_the_controller() -> None:
    faulty = Faulty(error=ValueError("no"))
    for ensemble, name in ((Ensemble.of(faulty), "faulty"), (Ensemble.of(faulty, "mine"), "mine")):
        state, _ = ensemble.step(fresh(ensemble), moment())
        assert [each.controller for each in state.incidents] == [name]


@pytest.mark.parametrize("load", [0.0, 8.0])
def test_a_price_at_the_edge_of_its_band_is_no_incident(load: float) -> None:
    state = fresh(MIXED)
    for at in range(200):
        state, proposed = MIXED.step(state, moment(load, float(at)))
        assert not state.incidents
    edge = OF.ceiling if load else OF.floor
    np.testing.assert_allclose(proposed.rates[:, [0, 1, 3]], edge[:, [0, 1, 3]])


def test_of_what_is_not_priced_anything_may_be_proposed() -> None:
    @dataclass(frozen=True)
    class Free(Faulty):
        def step(self, state: None, snapshot: MarketSnapshot) -> tuple[None, ProposedRates]:
            listed = snapshot.bands.listed
            return None, ProposedRates(np.where(listed > 0, 1.5 * listed, np.nan))

    ensemble = Ensemble.of(Free())
    state, proposed = ensemble.step(fresh(ensemble), moment())
    assert not state.incidents
    np.testing.assert_allclose(proposed.rates[OF.listed > 0], 1.5 * OF.listed[OF.listed > 0])


def test_a_band_that_changes_holds_from_the_next_tick_on() -> None:
    state = fresh(MIXED)
    for at in range(100):
        state, _ = MIXED.step(state, moment(8.0, float(at)))
    half = Bands(OF.floor, OF.listed, np.maximum(OF.ceiling // 2, OF.listed))
    for of in (half, OF):
        for at in range(100):
            state, proposed = MIXED.step(state, moment(8.0, 100.0 + at, of))
            assert (proposed.rates <= of.ceiling).all()
            assert not state.incidents
        np.testing.assert_allclose(proposed.rates[:, [0, 1, 3]], of.ceiling[:, [0, 1, 3]])


def test_a_choice_may_know_of_endpoints_that_the_market_does_not_have_yet() -> None:
    wider = replace(MIXED, group_of=np.array([0, 1, 2, 1, 2, 2]))
    _, proposed = wider.step(fresh(wider), moment())
    np.testing.assert_array_equal(proposed.rates, MIXED.step(fresh(MIXED), moment())[1].rates)


@dataclass(frozen=True)
class Noted:
    """The state of a controller that keeps more than numbers by endpoint."""

    by_endpoint: FloatArray
    of_all: FloatArray
    steps: int = 0


class Noting:
    """Proposes list prices, counts what it has seen of each endpoint and of all, and tells what
    elasticities it was given."""

    def __init__(self, size: int = 7) -> None:
        self._size = size
        self.elasticities: list[FloatArray | None] = []

    def resume(self, book: PriceBook, bands: Bands) -> Noted:
        return Noted(np.zeros(len(bands)), np.zeros(self._size))

    def step(self, state: Noted, snapshot: MarketSnapshot) -> tuple[Noted, ProposedRates]:
        self.elasticities.append(snapshot.elasticity)
        after = Noted(state.by_endpoint + 1.0, state.of_all + 1.0, state.steps + 1)
        return after, ProposedRates(snapshot.bands.listed.astype(np.float64))


@pytest.mark.parametrize("size", [2, 3, 7])
def test_of_a_group_that_changes_what_is_known_of_all_is_kept_whole(size: int) -> None:
    """Also where it has as many numbers as there were members, or are now."""
    two = Ensemble((group(Noting(size), "a"), group(Posted(), "b")), np.array([0, 0, 1, 1]))
    state = fresh(two)
    for at in range(3):
        state, _ = two.step(state, moment(at_s=float(at)))
    moved = replace(two, group_of=np.array([1, 0, 0, 0]))
    state, _ = moved.step(state, moment(at_s=4.0))
    noted = state.parts["a"].state
    assert noted.by_endpoint.tolist() == [4.0, 1.0, 1.0]
    assert noted.of_all.tolist() == [4.0] * size
    assert noted.steps == 4


def test_controllers_are_told_the_elasticity_that_is_safe_to_go_by_if_none_is_measured() -> None:
    noting = Noting()
    ensemble = Ensemble.of(noting)
    state, rng = fresh(ensemble), np.random.default_rng(4)
    for at in range(900):
        if at % 30 == 0:
            price = np.exp(rng.choice([-0.3, 0.3]))
        book = PriceBook.from_matrix(at + 1, np.rint(OF.listed * price).astype(np.int64))
        state, _ = ensemble.step(state, moment(0.7 * price**-3.0, float(at), book=book))
    first, last = noting.elasticities[0], noting.elasticities[-1]
    assert first is not None
    assert last is not None
    assert (first == noting.elasticities[28]).all(), "until a window is over"
    known = ensemble.estimator.estimate(state.demand)
    np.testing.assert_allclose(last, known.mean + known.error)
    np.testing.assert_allclose(last, 3.0, rtol=0.2)
    assert (first > 1.5).all(), "what is not known is taken for more than is likely"
    measured = replace(moment(book=LISTED), elasticity=np.full(4, 7.0))
    ensemble.step(state, measured)
    assert noting.elasticities[-1] is not None
    assert noting.elasticities[-1].tolist() == [7.0] * 4


def test_after_a_while_the_controller_is_tried_again() -> None:
    faulty, sound = (
        Ensemble((group(each, "one"),), np.zeros(4, dtype=int))
        for each in (Faulty(error=ValueError("no")), EXCESS)
    )
    state, _ = faulty.step(fresh(faulty), moment())
    state, proposed = sound.step(state, moment(at_s=BENCHED_S - 1.0))
    np.testing.assert_array_equal(proposed.rates, OF.listed)
    state, proposed = sound.step(state, moment(at_s=BENCHED_S))
    assert (proposed.rates[0, [0, 1, 3]] > OF.listed[0, [0, 1, 3]]).all()
    state, _ = faulty.step(state, moment(at_s=BENCHED_S + 4.0))
    assert len(state.incidents) == 1, "and told again when it fails again"


def test_a_schedule_moves_the_list_price_that_a_controller_goes_by() -> None:
    night = schedule_of([{"from": "22:00", "factor": 0.6}, {"from": "06:00", "factor": 1.0}])
    ensemble = Ensemble((group(EXCESS, "by clock", night),), np.zeros(4, dtype=int))
    state = fresh(ensemble)
    midnight, noon = 0.0, 12 * 3600.0
    state, proposed = ensemble.step(state, moment(0.7, noon, book=LISTED))
    np.testing.assert_allclose(proposed.rates, OF.listed)
    state, proposed = ensemble.step(state, moment(0.7, 24 * 3600.0 + midnight, book=LISTED))
    np.testing.assert_allclose(proposed.rates, np.maximum(0.6 * OF.listed, OF.floor))


def test_how_demand_answers_is_learned_for_the_gain_guard() -> None:
    """The steeper it is, the less a controller that is too quick may use of its gain."""
    of = bands((1, 10**6, 10**12, 0, 0, 0, 0, 0, 0), (1, 10**6, 10**12, 0, 0, 0, 0, 0, 0))
    ensemble = Ensemble.of(Posted())
    state, elasticity = fresh(ensemble, of), np.array([0.5, 8.0])
    rng = np.random.default_rng(4)
    for at in range(1_500):
        if at % 30 == 0:
            price = np.exp(rng.choice([-0.1, 0.1]))
        book = PriceBook.from_matrix(at + 1, np.rint(of.listed * price).astype(np.int64))
        load = 0.7 * price**-elasticity
        snapshot = MarketSnapshot(float(at), 1.0, load, of, book, np.ones(2))
        state, _ = ensemble.step(state, snapshot)
    known = ensemble.estimator.estimate(state.demand)
    assert known.mean[0] == pytest.approx(0.5, abs=0.4)
    assert known.mean[1] == pytest.approx(8.0, rel=0.15)

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.book import PriceBook
from pricing.fluid import FluidMarket
from pricing.snapshot import (
    BandMalformed,
    Bands,
    MarketSnapshot,
    OwnCounts,
    Reports,
    SnapshotMalformed,
    utilization,
)
from tests.unit.pricing.markets import BY_CALL, TOKENS, bands


def load(
    in_flight: float,
    capacity: float,
    *,
    refused: tuple[float, float] = (0.0, 0.0),
    report: tuple[float, float] = (0.0, 0.0),
    stale: bool = False,
) -> float:
    own = OwnCounts(np.array([in_flight]), np.array([refused[0]]), np.array([refused[1]]))
    reports = Reports(np.array([report[0]]), np.array([report[1]]), np.array([stale]))
    return float(utilization(own, reports, np.array([capacity]))[0])


def test_load_is_work_in_flight_and_work_refused_over_capacity() -> None:
    assert load(4, 8) == 0.5
    assert load(4, 8, refused=(3.0, 2.0)) == 1.25


def test_a_report_no_higher_than_the_own_count_adds_nothing() -> None:
    assert load(4, 8, report=(3, 1)) == 0.5
    assert load(4, 8, report=(0, 0)) == 0.5


def test_a_report_adds_what_it_shows_beyond_the_own_count_up_to_half_of_it() -> None:
    assert load(4, 16, report=(5, 0)) == 5 / 16
    assert load(4, 16, report=(100, 100)) == 6 / 16


def test_a_report_always_may_add_one_call_where_capacity_allows_it() -> None:
    assert load(0, 16, report=(9, 0)) == 1 / 16
    assert load(0, 1, report=(9, 0)) == 0.25


@pytest.mark.parametrize(
    "report",
    [(math.nan, 0), (math.inf, 0), (-math.inf, math.inf), (1e308, 1e308), (-9, 0), (0, math.nan)],
)
def test_a_report_that_is_no_number_or_below_zero_adds_nothing(
    report: tuple[float, float],
) -> None:
    assert load(4, 8, report=report) == 0.5


def test_a_stale_report_adds_nothing() -> None:
    assert load(4, 8, report=(8, 0), stale=True) == 0.5


def test_a_capacity_of_nothing_counts_as_one() -> None:
    assert load(2, 0) == 2.0


@given(
    st.integers(0, 500),
    st.integers(1, 100),
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(allow_nan=True, allow_infinity=True),
)
def test_no_report_lowers_the_load_or_adds_more_than_a_quarter_of_capacity(
    in_flight: int, capacity: int, running: float, waiting: float
) -> None:
    own = load(in_flight, capacity)
    claimed = load(in_flight, capacity, report=(running, waiting))
    assert own <= claimed <= own + 0.25 + 1e-12


def test_bands_are_laid_out_by_number_with_gaps_unpriced() -> None:
    made = Bands.from_rows({2: TOKENS, 0: BY_CALL}, size=4)
    assert made.floor.T.tolist() == [
        [0, 0, 500_000],
        [0, 0, 0],
        [1_000_000, 2_000_000, 0],
        [0, 0, 0],
    ]
    assert made.listed[:, 2].tolist() == [2_000_000, 4_000_000, 0]
    assert made.ceiling[:, 0].tolist() == [0, 0, 3_000_000]
    assert len(Bands.from_rows({})) == 0


@pytest.mark.parametrize(
    "component",
    [(0, 1, 2), (2, 1, 3), (1, 3, 2), (-1, 0, 1), (1, 1, 10**12 + 1), (0, 0, 1)],
)
def test_a_band_out_of_order_without_a_floor_or_beyond_the_maximum_is_refused(
    component: tuple[int, int, int],
) -> None:
    with pytest.raises(BandMalformed, match="endpoint 1:"):
        bands(TOKENS, (*component, 0, 0, 0, 0, 0, 0))


def test_bands_of_unequal_shape_are_refused() -> None:
    ones = np.ones((3, 2), dtype=np.int64)
    with pytest.raises(BandMalformed, match="shape"):
        Bands(ones, ones, np.ones((3, 1), dtype=np.int64))
    with pytest.raises(BandMalformed, match="shape"):
        Bands(ones[0], ones[0], ones[0])


@pytest.mark.parametrize("dt_s", [-1.0, math.nan, math.inf])
def test_a_tick_that_lasts_no_finite_time_is_refused(dt_s: float) -> None:
    with pytest.raises(SnapshotMalformed):
        MarketSnapshot(0.0, dt_s, np.zeros(1), bands(TOKENS))


def test_a_snapshot_has_a_load_for_every_endpoint() -> None:
    with pytest.raises(SnapshotMalformed):
        MarketSnapshot(0.0, 1.0, np.zeros(2), bands(TOKENS))


def test_a_snapshot_has_one_of_each_measurement_for_every_endpoint() -> None:
    of = bands(TOKENS, BY_CALL)
    for name in ("delay_ticks", "elasticity"):
        with pytest.raises(SnapshotMalformed, match=name):
            MarketSnapshot(0.0, 1.0, np.zeros(2), of, **{name: np.zeros(1)})
    one = np.ones((1, 1))
    with pytest.raises(SnapshotMalformed, match="fluid"):
        MarketSnapshot(0.0, 1.0, np.zeros(2), of, fluid=FluidMarket.dense(one[0], one[0], one, one))


def test_a_part_of_a_snapshot_holds_the_same_of_fewer_endpoints() -> None:
    of = bands(TOKENS, (0,) * 9, BY_CALL)
    matrix = np.arange(1.0, 7.0).reshape(2, 3)
    whole = MarketSnapshot(
        5.0,
        1.0,
        np.array([0.1, 0.2, 0.3]),
        of,
        PriceBook.from_matrix(4, of.listed),
        np.array([1.0, 2.0, 3.0]),
        np.array([4.0, 5.0, 6.0]),
        FluidMarket.dense(np.ones(2), np.ones(3), matrix, matrix),
    )
    numbers = np.array([2])
    part = whole.only(numbers, of.only(numbers))
    assert (part.at_s, part.dt_s, part.load.tolist()) == (5.0, 1.0, [0.3])
    assert part.bands.listed.tolist() == [[0], [0], [1_000_000]]
    assert part.book is not None
    assert part.book.rate(0).rate_call_nanos == 1_000_000
    assert part.delay_ticks is not None
    assert part.elasticity is not None
    assert (part.delay_ticks.tolist(), part.elasticity.tolist()) == ([3.0], [6.0])
    assert part.fluid is not None
    assert part.fluid.value.tolist() == [3.0, 6.0]
    assert part.fluid.arc_endpoint.tolist() == [0, 0]
    assert whole.only(np.arange(3), of).load is whole.load


def test_numbers_without_a_band_are_not_present() -> None:
    assert bands(TOKENS, (0,) * 9).present.tolist() == [True, False]

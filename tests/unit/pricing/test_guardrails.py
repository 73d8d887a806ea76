from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.book import PriceBook, ProposedRates
from pricing.guardrails import Guardrails, clamp, gain_limit, gain_share, kick_shares
from pricing.snapshot import Bands, MarketSnapshot
from tests.unit.pricing.markets import BY_CALL, TOKENS, bands, list_book, markets, snapshot

LIMITS = Guardrails(max_step_ratio=1.5, hysteresis=0.01)


def at(rate_in: int, version: int = 1) -> PriceBook:
    """A book with one endpoint, twice as dear out as in."""
    return PriceBook.from_matrix(version, np.array([[rate_in], [2 * rate_in], [0]]))


def propose(rate_in: float, limits: Guardrails = LIMITS, before: int = 2_000_000) -> PriceBook:
    proposed = ProposedRates(np.array([[rate_in], [2 * rate_in], [0.0]]))
    return clamp(at(before), proposed, bands(TOKENS), 2, limits)


def rate_in(clamped: PriceBook) -> int:
    return clamped.rate(0).rate_in_micros


def test_a_proposal_within_all_limits_is_published_rounded_at_the_given_version() -> None:
    clamped = propose(2_200_000.4)
    assert rate_in(clamped) == 2_200_000
    assert clamped.rate(0).rate_out_micros == 4_400_001
    assert clamped.version == 2


@pytest.mark.parametrize(("wanted", "got"), [(9e6, 3_000_000), (1e3, 1_333_333)])
def test_a_leap_is_cut_to_the_largest_step(wanted: float, got: int) -> None:
    assert rate_in(propose(wanted)) == got


@pytest.mark.parametrize(
    ("wanted", "before", "got"), [(9e6, 7_000_000, 8_000_000), (1e3, 1_100_000, 1_000_000)]
)
def test_a_price_stays_between_floor_and_ceiling(wanted: float, before: int, got: int) -> None:
    assert rate_in(propose(wanted, before=before)) == got


@pytest.mark.parametrize("wanted", [2_019_000.0, 1_981_000.0])
def test_a_move_below_the_hysteresis_is_not_published(wanted: float) -> None:
    assert rate_in(propose(wanted)) == 2_000_000


def test_the_last_small_move_to_an_edge_of_the_band_is_published() -> None:
    assert rate_in(propose(8_000_001.0, before=7_990_000)) == 8_000_000
    assert rate_in(propose(999_999.0, before=1_005_000)) == 1_000_000


def test_the_smallest_rate_can_leave_its_place() -> None:
    of = bands((1, 1, 9, 0, 0, 0, 0, 0, 0))
    clamped = clamp(list_book(of), ProposedRates(np.array([[9.0], [0.0], [0.0]])), of, 2)
    assert rate_in(clamped) == 2


def test_rates_of_an_endpoint_move_together_or_not_at_all() -> None:
    wanted = ProposedRates(np.array([[2_010_000.0], [4_400_000.0], [0.0]]))
    rate = clamp(at(2_000_000), wanted, bands(TOKENS), 2, LIMITS).rate(0)
    assert (rate.rate_in_micros, rate.rate_out_micros) == (2_010_000, 4_400_000)


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf, -1.0])
def test_nonsense_keeps_the_last_price_of_its_endpoint_alone(nonsense: float) -> None:
    of = bands(TOKENS, TOKENS)
    before = PriceBook.from_matrix(1, np.array([[2_500_000] * 2, [5_000_000] * 2, [0, 0]]))
    wanted = np.array([[2_600_000.0] * 2, [5_200_000.0] * 2, [0.0, 0.0]])
    wanted[1, 1] = nonsense
    clamped = clamp(before, ProposedRates(wanted), of, 2)
    assert clamped.rate(0).rate_in_micros == 2_600_000
    assert clamped.rate(1) == before.rate(1)


def test_nonsense_for_a_newcomer_leaves_it_at_list() -> None:
    wanted = ProposedRates(np.full((3, 1), np.nan))
    clamped = clamp(PriceBook.empty(), wanted, bands(TOKENS), 1)
    assert rate_in(clamped) == 2_000_000


def test_nonsense_about_what_is_not_priced_is_ignored() -> None:
    clamped = propose(2_200_000.0)
    wanted = np.array([[2_200_000.0], [4_400_000.0], [math.nan]])
    same = clamp(at(2_000_000), ProposedRates(wanted), bands(TOKENS), 2, LIMITS)
    assert same.rate(0).rate_in_micros == rate_in(clamped)


def test_an_endpoint_that_left_loses_its_price() -> None:
    gone = bands((0,) * 9, BY_CALL)
    before = list_book(bands(TOKENS, BY_CALL))
    after = clamp(before, ProposedRates(gone.listed.astype(np.float64)), gone, 2)
    assert after.changed(before).tolist() == [0]
    assert after.rate(1) == before.rate(1)


def test_a_band_that_moved_away_pulls_the_price_in_at_once() -> None:
    dearer = bands((6_000_000, 6_000_000, 9_000_000, 12_000_000, 12_000_000, 18_000_000, 0, 0, 0))
    after = clamp(at(2_000_000), ProposedRates(np.full((3, 1), 2e6)), dearer, 2, LIMITS)
    assert after.rate(0).rate_in_micros == 6_000_000


def test_a_price_outside_its_band_is_corrected_however_small_the_move() -> None:
    assert rate_in(propose(1_000_100.0, before=999_500)) == 1_000_100


def test_a_proposal_of_another_shape_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="bands"):
        clamp(at(2), ProposedRates(np.zeros((3, 2))), bands(TOKENS), 2)


anything = st.floats(allow_nan=True, allow_infinity=True)


@given(markets, st.data())
def test_whatever_is_proposed_the_book_is_in_band_and_within_a_step(
    of: Bands, data: st.DataObject
) -> None:
    draw = st.lists(anything, min_size=3 * len(of), max_size=3 * len(of))
    wanted = np.array(data.draw(draw)).reshape(3, -1)
    before = list_book(of)
    clamped = clamp(before, ProposedRates(wanted), of, 2)
    after, was = clamped.matrix(), before.matrix()
    assert (of.floor <= after).all()
    assert (after <= of.ceiling).all()
    assert (after <= np.ceil(was * 1.25)).all()
    assert (after >= np.floor(was / 1.25)).all()
    sane = ((np.isfinite(wanted) & (wanted >= 0)) | (of.ceiling == 0)).all(axis=0)
    assert (after[:, ~sane] == was[:, ~sane]).all()


@given(markets, st.floats(0.1, 10.0))
def test_a_steady_proposal_is_reached_and_then_nothing_changes(of: Bands, factor: float) -> None:
    wanted = ProposedRates((of.listed * factor).astype(np.float64))
    book = list_book(of)
    for version in range(2, 30):
        book = clamp(book, wanted, of, version)
    goal = np.clip(of.listed * factor, of.floor, of.ceiling)
    assert (np.abs(book.matrix() - goal) <= 0.001 * goal + 1.0).all()
    assert clamp(book, wanted, of, 31).changed(book).size == 0


@pytest.mark.parametrize(("tau_ticks", "limit"), [(0, 2.0), (1, 1.0), (2, 0.618), (3, 0.445)])
def test_the_gain_limit_falls_with_the_delay(tau_ticks: int, limit: float) -> None:
    assert gain_limit(tau_ticks) == pytest.approx(limit, abs=5e-4)


def test_limits_that_make_no_sense_are_refused() -> None:
    for ratio in (1.0, 0.5, math.inf, math.nan):
        with pytest.raises(ValueError, match="step"):
            Guardrails(max_step_ratio=ratio)
    for share in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="hysteresis"):
            Guardrails(hysteresis=share)
    with pytest.raises(ValueError, match="delay"):
        gain_limit(-1)


def measured(elasticity: list[float], delay_ticks: list[float]) -> MarketSnapshot:
    of = bands(*[TOKENS] * len(elasticity))
    return MarketSnapshot(
        0.0, 1.0, np.zeros(len(of)), of, None, np.array(delay_ticks), np.array(elasticity)
    )


def test_a_gain_is_cut_to_half_of_what_begins_to_oscillate() -> None:
    share = gain_share(0.4, measured([1.0, 5.0, 5.0, 5.0], [0.0, 0.0, 1.0, 3.0]))
    expected = [1.0, 0.5 * 2 / 2, 0.5 * 1 / 2, 0.5 * gain_limit(3) / 2]
    np.testing.assert_allclose(share, expected)


def test_a_delay_between_ticks_counts_as_the_longer() -> None:
    np.testing.assert_allclose(gain_share(9.0, measured([1.0], [1.2])), 0.5 * gain_limit(2) / 9.0)


def test_where_delay_or_elasticity_are_not_measured_no_gain_is_cut() -> None:
    known = measured([5.0], [3.0])
    for unknown in (
        snapshot(1.0, bands(TOKENS)),
        replace(known, elasticity=None),
        replace(known, delay_ticks=None),
    ):
        assert gain_share(9.0, unknown) == 1.0
        assert kick_shares(9.0, 9.0, unknown) == (1.0, 1.0)


def test_what_is_given_back_and_what_adds_up_leave_room_for_each_other() -> None:
    known = measured([0.0, 1.0, 4.0, 4.0], [0.0, 0.0, 0.0, 3.0])
    kick, push = kick_shares(0.1, 0.4, known)
    np.testing.assert_allclose(kick, [1.0, 1.0, 0.25 / 0.4, 0.25 / 0.4])
    left = np.array([1.0, 0.8, 0.5, 0.5])
    limits = 0.5 * np.array([2.0, 2.0, 2.0, gain_limit(3)])
    used = 0.4 * np.array([1e-9, 1.0, 4.0, 4.0])
    np.testing.assert_allclose(push, np.minimum(1.0, limits * left / used))


def test_what_was_mismeasured_never_frees_a_gain() -> None:
    share = np.asarray(gain_share(9.0, measured([math.nan, math.inf, -3.0], [1.0, 1.0, 1.0])))
    assert share.tolist() == [0.0, 0.0, 1.0]
    unknown = np.asarray(gain_share(9.0, measured([1.0, 1.0], [math.nan, math.inf])))
    assert (unknown < 0.2).all()


@given(st.floats(0.0, 1e6), st.floats(0.0, 1e6), st.floats(0.0, 1e4))
def test_gain_times_elasticity_stays_under_half_the_limit(
    gain: float, elasticity: float, delay: float
) -> None:
    share = float(np.asarray(gain_share(gain, measured([elasticity], [delay])))[0])
    assert 0.0 <= share <= 1.0
    assert gain * share * elasticity <= 0.5 * gain_limit(math.ceil(delay)) * (1 + 1e-9)

"""Means, intervals and paired differences."""

from __future__ import annotations

import math

import pytest

from simulations.measured.statistics import compare, interval


def test_an_interval_is_students() -> None:
    found = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.mean, found.count) == (3.0, 5)
    assert found.half == pytest.approx(2.776445 * math.sqrt(2.5 / 5.0), rel=1e-6)


def test_one_seed_has_no_interval_and_none_has_no_mean() -> None:
    assert math.isnan(interval([1.0]).low)
    assert interval([math.nan]).count == 0
    assert interval([math.nan, 2.0]).mean == 2.0


def test_pairs_tell_apart_what_means_do_not() -> None:
    first, second = [1.1, 5.2, 9.15], [1.0, 5.0, 9.0]
    assert interval(first).low < interval(second).high
    found = compare(first, second)
    assert found.is_sure
    assert found.gap.mean == pytest.approx(0.15)
    assert found.chance == pytest.approx(0.0351, abs=1e-3)


def test_seeds_that_one_of_both_lacks_are_left_out() -> None:
    assert compare([1.0, math.nan, 3.0], [1.0, 1.0, 1.0]).gap.count == 2
    assert compare([1.0, 1.0], [1.0, 1.0]).chance == 1.0

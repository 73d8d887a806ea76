"""Who answers canaries well and traffic badly is told from who had bad luck."""

from __future__ import annotations

import pytest

from broker.core.gap import Gap, Tally, gap_between


def of(right: int, count: int) -> Tally:
    return Tally(count, float(right), float(right))


def test_a_wide_gap_shows() -> None:
    gap = gap_between(of(38, 40), of(50, 100))
    assert gap.apart == pytest.approx(0.45)
    assert gap.shows


@pytest.mark.parametrize(
    ("canaries", "traffic"), [(of(30, 40), of(70, 100)), (of(20, 40), of(95, 100))]
)
def test_a_narrow_gap_and_one_the_other_way_do_not(canaries: Tally, traffic: Tally) -> None:
    assert not gap_between(canaries, traffic).shows


def test_of_a_few_nothing_is_said() -> None:
    assert gap_between(of(9, 9), of(0, 100)) == gap_between(of(40, 40), of(0, 9)) == Gap()
    assert of(0, 0).mean is None


def test_answers_that_are_all_right_are_not_beyond_doubt() -> None:
    assert of(10, 10).error > 0.0

"""Who answers canaries well and traffic badly is told from who had bad luck."""

from __future__ import annotations

import pytest

from broker.core.answers.gap import Gap, Heard, Tally, gap_between, gaps_of


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


def on_a_scale(mean: float, count: int) -> Tally:
    return Tally(count, mean * count, (mean**2 + 0.01) * count)


def test_scores_on_a_scale_are_set_beside_those_of_others() -> None:
    none = Tally(0, 0.0, 0.0)
    fair = [Heard("law", of(38, 40), none, on_a_scale(0.7, 200)) for _ in range(3)]
    assert gaps_of(fair[:1]) == [Gap()], "seventy of a hundred may be praise"
    assert not any(each.shows for each in gaps_of(fair))
    feigned = Heard("law", of(39, 40), none, on_a_scale(0.3, 200))
    elsewhere = Heard("cooking", of(39, 40), none, on_a_scale(0.3, 200))
    *others, gap, alone = gaps_of([*fair, feigned, elsewhere])
    assert gap.shows
    assert gap.apart == pytest.approx(0.425, abs=0.01)
    assert not any(each.shows for each in others)
    assert alone == Gap()


def test_right_and_wrong_are_compared_with_right_and_wrong_where_there_is_enough() -> None:
    both = Heard("law", of(38, 40), of(50, 100), on_a_scale(0.9, 100))
    assert gaps_of([both]) == [gap_between(of(38, 40), of(50, 100))]

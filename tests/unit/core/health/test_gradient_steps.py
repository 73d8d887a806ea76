"""By how much a limit that is learned moves, and when: as its formulae say."""

from __future__ import annotations

import math
from random import Random

import pytest

from broker.core.health.gradient import (
    REFUSED_FACTOR,
    RELAX_AFTER_S,
    SAMPLES_MIN,
    SMOOTHING,
    WINDOW_S,
    Gradient,
    is_of,
    kind_of,
)


def knowing(most: float) -> Gradient:
    """A limit of things that are known to take 100 ms."""
    gradient = Gradient(most, 0.0)
    window(gradient, 100.0, 1, 0.0)
    return gradient


def window(gradient: Gradient, took_ms: float, under_way: int, now_s: float) -> float:
    """The limit after as many as are judged together."""
    for _ in range(SAMPLES_MIN):
        gradient.tell(0, took_ms, under_way, now_s)
    return gradient.limit


def stepped(limit: float, gradient: float) -> float:
    return limit + SMOOTHING * (limit * gradient + math.sqrt(limit) - limit)


@pytest.mark.parametrize(
    ("took_ms", "gradient"), [(399.0, None), (500.0, 0.8), (800.0, 0.5), (1_500.0, 0.5)]
)
def test_a_limit_goes_a_part_of_the_way_to_what_the_gradient_says(
    took_ms: float, gradient: float | None
) -> None:
    """It is 4 over how many times as long things take, from a half to one."""
    found = window(knowing(100.0), took_ms, 60, 1.0)
    assert found == pytest.approx(100.0 if gradient is None else stepped(100.0, gradient))


def test_one_far_above_what_is_under_way_is_brought_near_at_the_third_slow_window() -> None:
    gradient, expected = knowing(100.0), 100.0
    for now_s in (1.0, 2.0):
        expected = stepped(expected, 0.5)
        assert window(gradient, 800.0, 20, now_s) == pytest.approx(expected)
    assert window(gradient, 800.0, 20, 3.0) == pytest.approx(stepped(40.0, 0.5))
    near = knowing(100.0)
    window(near, 800.0, 20, 1.0)
    before = window(near, 800.0, 20, 2.0)
    assert window(near, 100.0, 20, 3.0) == before, "what is far from it tells nothing"
    assert window(near, 800.0, 20, 4.0) == pytest.approx(stepped(before, 0.5)), "of three in a row"


@pytest.mark.parametrize(("under_way", "grows"), [(17, False), (18, True)])
def test_a_limit_that_is_half_used_grows_by_a_part_of_its_root(under_way: int, grows: bool) -> None:
    gradient = knowing(100.0)
    gradient.refused(50, 1.0)
    expected = stepped(35.0, 1.0) if grows else 35.0
    assert window(gradient, 100.0, under_way, 2.0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("refused_at", "under_way", "learns"),
    [
        (None, 4, True),
        (None, 5, False),
        (50, 8, True),  # of a limit of 35 that was learned, a quarter
        (50, 9, False),
        (7, 60, True),  # where so few may be, nobody else ever tells
    ],
)
def test_what_is_usual_is_learned_where_there_is_little_to_do(
    refused_at: int | None, under_way: int, learns: bool
) -> None:
    gradient = knowing(100.0)
    if refused_at is not None:
        gradient.refused(refused_at, 0.1)
    for _ in range(80):
        gradient.tell(0, 200.0, under_way, 0.2)
    gradient.tell(0, 200.0, under_way, 1.0)
    before = gradient.limit
    assert (window(gradient, 700.0, 60, 2.0) < before) == (not learns)


def test_a_limit_that_was_refused_is_lowered_alone_and_once_in_a_window() -> None:
    gradient = Gradient(50.0, 0.0)
    assert gradient.refused(20, 1.0)
    assert gradient.limit == pytest.approx(14.0)
    assert not gradient.refused(40, 1.0 + WINDOW_S)
    assert gradient.limit == pytest.approx(14.0), "more than that were under way"
    assert gradient.refused(10, 1.0 + 2 * WINDOW_S)
    assert gradient.limit == pytest.approx(7.0)


def test_where_nothing_ends_a_limit_rises_by_its_root_every_two_seconds() -> None:
    gradient = Gradient(45.0, 0.0)
    gradient.refused(50, 1.0)
    expected = 35.0
    for now_s in (1.0, 3.0):
        assert not gradient.relax(now_s + 0.99 * RELAX_AFTER_S)
        assert gradient.relax(now_s + RELAX_AFTER_S)
        expected = min(expected + math.sqrt(expected), 45.0)
        assert gradient.limit == pytest.approx(expected)
    assert gradient.limit == 45.0
    assert not gradient.relax(9.0)


def test_a_capacity_that_is_declared_anew_leaves_a_limit_that_was_learned_below_it() -> None:
    gradient = Gradient(50.0, 0.0)
    gradient.refused(20, 1.0)
    gradient.allow(100.0)
    assert gradient.limit == pytest.approx(14.0)
    gradient.allow(30.0)
    assert gradient.limit == pytest.approx(14.0)
    for step in range(9):
        gradient.relax(10.0 + step * RELAX_AFTER_S)
    assert gradient.limit == 30.0


def test_things_are_of_a_size_in_to_a_power_of_two() -> None:
    for size_out in (0, 8, 900):
        kind = kind_of(400, size_out)
        assert [is_of(kind, size) for size in (255, 256, 511, 512)] == [False, True, True, False]


def test_many_that_are_told_together_change_the_limit_as_one_by_one() -> None:
    random, one, many = Random(2), Gradient(60.0, 0.0), Gradient(60.0, 0.0)
    now_s, changes = 0.0, 0
    for _ in range(400):
        size, slow = random.randrange(1, 9), random.choice([1.0, 1.0, 9.0])
        at_s = [now_s + each / 40 for each in range(size)]
        now_s += size / 40
        kinds = [random.randrange(2) for _ in at_s]
        took_ms = [slow * random.uniform(80.0, 120.0) for _ in at_s]
        under_way = [random.choice([2, 40]) for _ in at_s]
        told = [one.tell(*each) for each in zip(kinds, took_ms, under_way, at_s, strict=True)]
        assert many.tell_many(kinds, took_ms, under_way, at_s) == any(told)
        assert many.limit == one.limit
        changes += any(told)
    assert changes > 5


@pytest.mark.parametrize(("lasted_ms", "counts_as"), [(800.0, 8.0), (1e9, 16.0)])
def test_where_all_are_given_up_the_limit_is_halved_beyond_what_the_gradient_says(
    lasted_ms: float, counts_as: float
) -> None:
    gradient = knowing(100.0)
    assert not gradient.cut(lambda kind: kind == 0, 99.0, 60, 1.0), "it may have come in time"
    assert not gradient.cut(lambda kind: kind == 1, lasted_ms, 60, 1.0), "of no kind that is known"
    for _ in range(SAMPLES_MIN - 1):
        assert not gradient.cut(lambda kind: kind == 0, lasted_ms, 60, 1.0)
    assert gradient.cut(lambda kind: kind == 0, lasted_ms, 60, 1.0)
    assert gradient.limit == pytest.approx(stepped(100.0, max(4.0 / counts_as, 0.5)) / 2.0)


def of_kind(kind: int) -> bool:
    return kind == 0


def test_of_who_gives_up_as_often_with_little_to_do_it_is_haste_until_others_wait() -> None:
    for patient, counts in ((0, False), (400, True)):
        gradient = knowing(100.0)
        gradient.tell(0, 100.0, 2, 0.1)
        for _ in range(300):
            gradient.cut(of_kind, 120.0, 2, 0.2)
        for _ in range(patient):
            gradient.tell(0, 100.0, 2, 0.3)
        gradient.tell(0, 100.0, 2, 1.0)
        assert gradient.limit == 100.0
        for _ in range(SAMPLES_MIN):
            gradient.cut(of_kind, 800.0, 60, 2.0)
        assert (gradient.limit < 100.0) == counts


def test_what_is_given_up_tells_how_many_were_under_way() -> None:
    gradient, expected = knowing(100.0), 100.0
    for now_s in (1.0, 2.0, 3.0):
        for _ in range(SAMPLES_MIN):
            gradient.cut(of_kind, 800.0, 5, now_s)
        begun = min(expected, 10.0) if now_s == 3.0 else expected
        expected = stepped(begun, 0.5) / 2.0
        assert gradient.limit == pytest.approx(expected)


def test_where_only_a_few_may_be_under_way_as_many_are_enough_to_judge_by() -> None:
    gradient = knowing(100.0)
    gradient.refused(4, 0.1)
    assert [gradient.tell(0, 800.0, 2, 1.0) for _ in range(3)] == [False, False, True]
    assert gradient.limit == pytest.approx(stepped(REFUSED_FACTOR * 4, 0.5))


def test_no_limit_rises_by_itself_where_things_end() -> None:
    gradient = knowing(100.0)
    gradient.refused(50, 1.0)
    told = [gradient.tell(0, 100.0, 17, 10.0) for _ in range(SAMPLES_MIN)]
    assert not any(told), "far from the limit nothing is learned of it"
    assert not gradient.relax(10.0 + 0.99 * RELAX_AFTER_S)
    assert gradient.relax(10.0 + RELAX_AFTER_S)

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.schedule import Schedule, ScheduleMalformed, schedule_of, scheduled
from pricing.snapshot import Bands
from tests.unit.pricing.markets import BY_CALL, TOKENS, bands, markets

OFFICE = schedule_of(
    [
        {"from": "08:00", "factor": 1.5, "days": ["mon", "tue", "wed", "thu", "fri"]},
        {"from": "18:00", "factor": 0.8},
    ]
)
WEDNESDAY = datetime(2025, 1, 1, tzinfo=UTC)


def at(day: datetime, hours: float = 0.0) -> float:
    return (day + timedelta(hours=hours)).timestamp()


@pytest.mark.parametrize(
    ("hours", "factor"),
    [(0, 0.8), (7.99, 0.8), (8, 1.5), (17.99, 1.5), (18, 0.8), (23.99, 0.8), (24 + 9, 1.5)],
)
def test_a_factor_holds_from_its_hour_on(hours: float, factor: float) -> None:
    assert OFFICE.factor_at(at(WEDNESDAY, hours)) == factor


def test_a_step_without_days_holds_every_day_and_one_with_days_on_them_alone() -> None:
    saturday = WEDNESDAY + timedelta(days=3)
    assert OFFICE.factor_at(at(saturday, 12)) == 0.8
    assert OFFICE.factor_at(at(saturday + timedelta(days=2), 12)) == 1.5


def test_before_the_first_step_of_the_week_its_last_one_holds() -> None:
    only = Schedule(((60, 2.0), (7 * 24 * 60 - 1, 3.0)))
    monday = WEDNESDAY + timedelta(days=5)
    assert only.factor_at(at(monday)) == 3.0
    assert only.factor_at(at(monday, 1)) == 2.0


def test_a_clock_may_be_ahead_of_utc() -> None:
    ahead = Schedule(OFFICE.steps, utc_offset_minutes=120)
    assert ahead.factor_at(at(WEDNESDAY, 6)) == 1.5
    assert OFFICE.factor_at(at(WEDNESDAY, 6)) == 0.8


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ({"from": "8:00", "factor": 1.0}, "a time such as"),
        ({"from": "24:00", "factor": 1.0}, "a time such as"),
        ({"from": 8, "factor": 1.0}, "a time such as"),
        ({"factor": 1.0}, "a time such as"),
        ({"from": "08:00"}, "a number"),
        ({"from": "08:00", "factor": True}, "a number"),
        ({"from": "08:00", "factor": 0.0}, "lies between"),
        ({"from": "08:00", "factor": float("nan")}, "lies between"),
        ({"from": "08:00", "factor": 1.0, "days": []}, "'days' are of"),
        ({"from": "08:00", "factor": 1.0, "days": ["monday"]}, "'days' are of"),
        ({"from": "08:00", "factor": 1.0, "day": "mon"}, "no field 'day'"),
    ],
)
def test_a_step_that_makes_no_sense_is_refused(step: Mapping[str, object], told: str) -> None:
    with pytest.raises(ScheduleMalformed, match=told):
        schedule_of([step])


def test_steps_at_one_minute_and_schedules_without_a_step_are_refused() -> None:
    step = {"from": "08:00", "factor": 1.0}
    with pytest.raises(ScheduleMalformed, match="another step"):
        schedule_of([step, step])
    with pytest.raises(ScheduleMalformed, match="1 to 500"):
        schedule_of([])
    with pytest.raises(ScheduleMalformed, match="offset"):
        schedule_of([step], utc_offset_minutes=10**6)


def test_list_prices_move_and_bands_stay() -> None:
    of = bands(TOKENS, BY_CALL)
    dear = scheduled(of, 1.5)
    assert dear.listed[:, 0].tolist() == [3_000_000, 6_000_000, 0]
    assert dear.listed[2, 1] == 1_500_000
    np.testing.assert_array_equal(scheduled(of, 90.0).listed, of.ceiling)
    np.testing.assert_array_equal(scheduled(of, 0.02).listed, of.floor)


@given(markets, st.floats(0.01, 100.0))
def test_whatever_the_factor_the_bands_are_sound(of: Bands, factor: float) -> None:
    made = scheduled(of, factor)
    assert (made.floor <= made.listed).all()
    assert (made.listed <= made.ceiling).all()

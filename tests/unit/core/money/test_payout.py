"""Schedules, and what of an amount can be paid."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.money.payout import CENT_NANOS, Bank, Schedule, Stripe, next_due, whole_cents


@pytest.mark.parametrize(
    ("schedule", "now", "due"),
    [
        (Schedule.DAILY, "2027-02-28T00:00", "2027-03-01"),
        (Schedule.DAILY, "2027-12-31T23:59", "2028-01-01"),
        (Schedule.WEEKLY, "2027-03-01T00:00", "2027-03-08"),  # a Monday
        (Schedule.WEEKLY, "2027-03-07T12:00", "2027-03-08"),
        (Schedule.MONTHLY, "2027-01-01T00:00", "2027-02-01"),
        (Schedule.MONTHLY, "2027-01-31T08:00", "2027-02-01"),
        (Schedule.MONTHLY, "2027-12-02T08:00", "2028-01-01"),
    ],
)
def test_a_payout_is_due_at_the_next_midnight_of_its_schedule(
    schedule: Schedule, now: str, due: str
) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
    assert next_due(schedule, moment) == datetime.fromisoformat(due).replace(tzinfo=UTC)


def test_by_hand_nothing_is_ever_due() -> None:
    assert next_due(Schedule.MANUAL, datetime.now(UTC)) is None


@given(now=st.datetimes(timezones=st.just(UTC), max_value=datetime(9000, 1, 1)))  # noqa: DTZ001
def test_the_next_time_is_later_and_not_too_late(now: datetime) -> None:
    for schedule, days in ((Schedule.DAILY, 1), (Schedule.WEEKLY, 7), (Schedule.MONTHLY, 31)):
        due = next_due(schedule, now)
        assert due is not None
        assert timedelta(0) < due - now <= timedelta(days=days)
        assert next_due(schedule, due - timedelta(microseconds=1)) == due


@given(nanos=st.integers(-(10**18), 10**18))
def test_whole_cents_leave_less_than_a_cent(nanos: int) -> None:
    cents = whole_cents(nanos)
    assert cents % CENT_NANOS == 0
    assert 0 <= max(nanos, 0) - cents < CENT_NANOS


def test_a_hint_shows_no_account() -> None:
    assert Bank("Acme", "DE89370400440532013000").hint == "DE89…3000"
    assert Stripe("acct_1a2b3c4d5e6f").hint == "acct_…5e6f"

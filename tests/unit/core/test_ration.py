"""A ration is for each account at each endpoint, and is there anew the next day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from broker.core.ration import SAVED_S, Ration

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SHOP, RIVAL = UUID(int=1), UUID(int=2)


def test_what_one_account_has_taken_is_left_for_others_and_comes_back_tomorrow() -> None:
    ration = Ration(3, 100.0)
    assert [ration.take(SHOP, 7, NOON) for _ in range(5)] == [True] * 3 + [False] * 2
    assert ration.take(SHOP, 8, NOON)
    assert ration.take(RIVAL, 7, NOON)
    assert ration.take(SHOP, 7, NOON + timedelta(days=1))


def test_all_together_take_so_much_a_second_and_what_was_left_for_a_while() -> None:
    ration = Ration(1, 2.0)
    endpoints = iter(range(1_000))

    def taken(now: datetime) -> int:
        return sum(ration.take(SHOP, next(endpoints), now) for _ in range(50))

    assert taken(NOON) == 2 * SAVED_S
    assert taken(NOON + timedelta(seconds=1)) == 2
    assert taken(NOON + timedelta(seconds=1)) == 0
    assert taken(NOON + timedelta(hours=1)) == 2 * SAVED_S
    assert taken(NOON) == 0, "a clock that was set back gives nothing"


def test_who_is_refused_for_want_of_time_has_lost_nothing_of_the_day() -> None:
    ration = Ration(1, 0.2)
    assert ration.take(SHOP, 1, NOON)
    assert not ration.take(SHOP, 2, NOON)
    assert ration.take(SHOP, 2, NOON + timedelta(seconds=5))
    assert not ration.take(SHOP, 2, NOON + timedelta(seconds=60))

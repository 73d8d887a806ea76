"""A ration is for each account at each endpoint, and is there anew the next day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from broker.core.money.ration import Ration

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SHOP, RIVAL = UUID(int=1), UUID(int=2)


def test_what_one_account_has_taken_is_left_for_others_and_comes_back_tomorrow() -> None:
    ration = Ration(3)
    assert [ration.take(SHOP, 7, NOON) for _ in range(5)] == [True] * 3 + [False] * 2
    assert ration.take(SHOP, 8, NOON)
    assert ration.take(RIVAL, 7, NOON)
    assert ration.take(SHOP, 7, NOON + timedelta(days=1))

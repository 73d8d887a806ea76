"""How long earnings wait."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.core.money.maturity import MaturityTerms, Track, Trust, delay, trust

TERMS = MaturityTerms()


@pytest.mark.parametrize(
    ("track", "stage", "days"),
    [
        (Track(0, 0, 0), Trust.NEW, 14),
        (Track(29, 10_000, 0), Trust.NEW, 14),
        (Track(30, 999, 0), Trust.NEW, 14),
        (Track(30, 1_000, 0), Trust.KNOWN, 7),
        (Track(179, 10_000, 0), Trust.KNOWN, 7),
        (Track(180, 10_000, 0), Trust.TRUSTED, 2),
        (Track(1_000, 10_000, 1), Trust.NEW, 14),
    ],
)
def test_the_better_a_provider_is_known_the_less_its_earnings_wait(
    track: Track, stage: Trust, days: int
) -> None:
    assert trust(track, TERMS) is stage
    assert delay(track, TERMS) == timedelta(days=days)


@pytest.mark.parametrize("days", [0, 3, 365])
def test_an_operator_has_the_last_word(days: int) -> None:
    assert delay(Track(1_000, 10_000, 5, days_set=days), TERMS) == timedelta(days=days)

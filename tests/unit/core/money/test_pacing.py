"""A budget is spent evenly to its end, whatever calls cost and however their number changes."""

from __future__ import annotations

import math
from random import Random

import pytest

from broker.core.money.pacing import PRICE_MAX, VALUE_NANOS_MAX, Pace

TICK_S = 10.0
DAY_S = 86_400.0


def spend(limit_nanos: int, days: int, dearer: float = 1.0) -> list[int]:
    """Play calls that choose between a cheap and a dear model, more by day than by night; prices
    change half-way. Return what is spent by the end of each day."""
    now_s, ends_s, pace = 0.0, days * DAY_S, Pace(0.0, 0)
    spent, spent_by_day, call = 0, list[int](), 0
    while now_s < ends_s:
        now_s += TICK_S
        factor = dearer if now_s > ends_s / 2 else 1.0
        cheap, dear = 1_000 * factor, 20_000 * factor
        for _ in range(round(6 + 4 * math.sin(now_s / DAY_S * 2 * math.pi))):
            call += 1
            gain = 0.4 * (call * 0.618 % 1.0)
            pace = pace.saw((cheap + dear) / 2)
            spent += int(dear if gain > (dear - cheap) / pace.value_nanos else cheap)
        pace = pace.stepped(spent, limit_nanos, ends_s - now_s, now_s)
        if now_s % DAY_S == 0:
            spent_by_day.append(spent)
    return spent_by_day


@pytest.mark.parametrize("dearer", [1.0, 5.0])
def test_a_budget_is_spent_to_its_end_and_evenly(dearer: float) -> None:
    limit = round(6 * 8_640 * 6 * 8_000 * (dearer + 1) / 2)
    spent = spend(limit, 6, dearer)
    assert spent[-1] == pytest.approx(limit, rel=0.02)
    if dearer == 1.0:
        assert spent[2] == pytest.approx(limit / 2, rel=0.1)


def month(share: float, dearer: float = 1.0) -> tuple[float, float]:
    """Play a month of one call in five minutes, ten times as many by day as by night, between a
    cheap model and one that costs a hundred times as much; the latter's price may rise half-way.
    The budget is `share` of what the dear one alone would cost. Return what is spent of it, and how
    many of the good answers that the best choice in hindsight had gained."""
    random, ends_s, step_s = Random(5), 30 * DAY_S, 300.0
    pace, spent, gained, gains = Pace(0.0, 0), 0, 0.0, list[tuple[float, int]]()
    for call in range(1, round(ends_s / step_s) + 1):
        now_s = call * step_s
        if random.random() > 0.55 + 0.45 * math.sin(now_s / DAY_S * 2 * math.pi):
            continue
        cheap, dear = 1_000, round(100_000 * (dearer if now_s > ends_s / 2 else 1.0))
        gains.append((random.random() * 0.5, dear - cheap))
    limit = round(len(gains) * 1_000 + share * sum(more for _, more in gains))
    left, best = limit - len(gains) * 1_000, 0.0
    for gain, more in sorted(gains, key=lambda each: -each[0] / each[1]):
        best += gain if left >= more else 0.0
        left -= more
    random, drawn = Random(5), iter(gains)
    for call in range(1, round(ends_s / step_s) + 1):
        now_s = call * step_s
        if random.random() > 0.55 + 0.45 * math.sin(now_s / DAY_S * 2 * math.pi):
            continue
        random.random()
        gain, more = next(drawn)
        pace = pace.stepped(spent, limit, ends_s - now_s, now_s).saw(1_000 + more / 2)
        if gain > more / pace.value_nanos:
            spent, gained = spent + more, gained + gain
        spent += 1_000
    return spent / limit, gained / best


@pytest.mark.parametrize("dearer", [1.0, 5.0])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_month_of_days_and_nights_is_spent_whole_and_nearly_as_well_as_can_be(
    share: float, dearer: float
) -> None:
    spent, gained = month(share, dearer)
    assert spent == pytest.approx(1.0, abs=0.03)
    assert gained > (0.85 if dearer == 1.0 else 0.65), "in hindsight the rise is known before"


def test_who_can_afford_all_pays_no_heed_to_cost() -> None:
    pace = Pace(0.0, 0).saw(1_000.0)
    assert pace.value_nanos == VALUE_NANOS_MAX
    for tick in range(1, 100):
        pace = pace.stepped(tick, 10**12, 1e6, 10.0 * tick)
    assert pace.price == 0.0
    assert pace.value_nanos == VALUE_NANOS_MAX


def test_a_spent_budget_makes_money_ever_dearer_and_a_new_month_cheap_again() -> None:
    pace = Pace(0.0, 0).saw(1_000.0)
    for tick in range(1, 5_000):
        pace = pace.stepped(100, 100, 1e6, 100.0 * tick)
    assert pace.price == PRICE_MAX
    assert pace.value_nanos == 20
    at_s = pace.at_s
    for tick in range(1, 5_000):
        pace = pace.stepped(tick // 1_000, 10**9, 1e6, at_s + 600.0 * tick)
    assert pace.price == 0.0


def test_a_moment_that_was_looked_at_already_changes_nothing() -> None:
    pace = Pace(50.0, 10, price=0.5, rate=1.0, usual_nanos=100.0)
    assert pace.stepped(20, 1_000, 100.0, 50.0) is pace
    assert pace.stepped(20, 1_000, 100.0, 40.0) is pace

"""Prices by the clock: list prices that are another multiple at other hours of the week.

    list(t) = list * factor(t), inside the band

Whatever a controller does with load happens around this list, so a schedule can stand before any.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pricing.snapshot import Bands

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
STEPS_MAX = 500
FACTOR_MAX = 100.0
_DAY_MINUTES = 24 * 60
_WEEK_MINUTES = 7 * _DAY_MINUTES
_EPOCH_MINUTES = 3 * _DAY_MINUTES
"""Unix time began on a Thursday."""


class ScheduleMalformed(ValueError):
    """A schedule that cannot be kept; the message names the step."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Factors on the list price; each holds from its minute of the week on until the next."""

    steps: tuple[tuple[int, float], ...]
    """(minute after Monday 00:00, factor), ascending."""
    utc_offset_minutes: int = 0
    """What its clock is ahead of UTC, all year round."""

    def __post_init__(self) -> None:
        if not 0 < len(self.steps) <= STEPS_MAX:
            raise ScheduleMalformed(f"a schedule has 1 to {STEPS_MAX} steps")
        minutes = [minute for minute, _ in self.steps]
        if minutes != sorted(set(minutes)) or not 0 <= minutes[0] <= minutes[-1] < _WEEK_MINUTES:
            raise ScheduleMalformed("each step has a minute of the week of its own")
        for _, factor in self.steps:
            if not (math.isfinite(factor) and 1.0 / FACTOR_MAX <= factor <= FACTOR_MAX):
                raise ScheduleMalformed(f"a factor lies between {1 / FACTOR_MAX} and {FACTOR_MAX}")
        if not abs(self.utc_offset_minutes) <= _DAY_MINUTES:
            raise ScheduleMalformed("an offset from UTC is at most a day")

    def factor_at(self, at_s: float) -> float:
        """The factor that holds at a Unix time; before the week's first step, its last."""
        minutes = math.floor(at_s / 60.0) + self.utc_offset_minutes + _EPOCH_MINUTES
        place = bisect_right(self.steps, (minutes % _WEEK_MINUTES, math.inf))
        return self.steps[place - 1][1]


def schedule_of(steps: Sequence[Mapping[str, object]], utc_offset_minutes: int = 0) -> Schedule:
    """A schedule from steps such as {"from": "08:00", "factor": 1.5, "days": ["mon", "fri"]}.

    Without `days` a step holds on every day. Raises ScheduleMalformed.
    """
    made: dict[int, float] = {}
    for place, step in enumerate(steps):
        if unknown := set(step) - {"from", "factor", "days"}:
            raise ScheduleMalformed(f"step {place}: there is no field '{min(unknown)}'")
        minute, factor = _minute(step.get("from"), place), step.get("factor")
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            raise ScheduleMalformed(f"step {place}: 'factor' is a number")
        for day in _days(step.get("days", DAYS), place):
            at = day * _DAY_MINUTES + minute
            if at in made:
                raise ScheduleMalformed(f"step {place}: another step begins at that minute")
            made[at] = float(factor)
    return Schedule(tuple(sorted(made.items())), utc_offset_minutes)


def _minute(text: object, place: int) -> int:
    hours, colon, minutes = text.partition(":") if isinstance(text, str) else ("", "", "")
    plain = colon and len(hours) == 2 and len(minutes) == 2 and (hours + minutes).isdecimal()
    if not plain or int(hours) > 23 or int(minutes) > 59:
        raise ScheduleMalformed(f"step {place}: 'from' is a time such as \"08:00\"")
    return 60 * int(hours) + int(minutes)


def _days(names: object, place: int) -> list[int]:
    known = isinstance(names, list | tuple) and names and all(each in DAYS for each in names)
    if not known or not isinstance(names, list | tuple):
        raise ScheduleMalformed(f"step {place}: 'days' are of {', '.join(DAYS)}")
    return sorted({DAYS.index(each) for each in names})


def scheduled(bands: Bands, factor: float) -> Bands:
    """The bands with their list prices times a factor, as far as floor and ceiling let them."""
    listed = np.clip(np.rint(bands.listed * factor), bands.floor, bands.ceiling)
    return Bands(bands.floor, listed.astype(np.int64), bands.ceiling)

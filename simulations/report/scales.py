"""Scales of plots: from values to places, round ticks, and how numbers and times are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MISSING, TIMES, MINUS = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_TIME_STEPS_S = (1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600)
_HOUR_S, _DAY_S = 3_600, 86_400
_SIGNIFICANT = 4
"""Digits of a mean at most."""
_SURE = 5e-4
"""A half below this share of the mean is none."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from `low` to `high` become places from `begin` to `end`."""

    low: float
    high: float
    begin: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value; of a log scale values at or below zero are at its low end."""
        if self.is_log:
            low, high = math.log(self.low), math.log(self.high)
            share = (math.log(max(value, self.low)) - low) / (high - low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values within, about so many."""
        return _log_ticks(self.low, self.high) if self.is_log else _ticks(self, about)


def spanning(values: Sequence[float], *, is_log: bool = False, zero: bool = False) -> list[float]:
    """Return [low, high] around the finite values with some room; `zero` begins at zero."""
    known = [each for each in values if math.isfinite(each) and (each > 0.0 or not is_log)]
    if not known:
        return [1.0, 10.0] if is_log else [0.0, 1.0]
    low, high = min(known), max(known)
    if is_log:
        return [low / 1.15, high * 1.15]
    low = min(low, 0.0) if zero else low
    room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return [low if zero and low == 0.0 else low - room, high + room]


def number(value: float, unit: str = "") -> str:
    """A number in three digits; `%` is of shares, and `x` stands before."""
    if not math.isfinite(value):
        return MISSING
    if unit == "%" or unit.startswith("% "):
        told = f"{_plain(100.0 * value)}{unit}"
    elif unit.startswith("x"):
        told = f"{_plain(value)}{TIMES}"
    else:
        told = f"{_plain(value)} {unit}".strip()
    return told.replace("-", MINUS)


def setting(value: object) -> str:
    """What a scenario is set to, for people: tables and files tell numbers in full."""
    return number(value) if isinstance(value, float) else str(value)


def _plain(value: float) -> str:
    size = abs(value)
    if size >= 1e6 or 0.0 < size < 1e-3:
        for least, prefix in _PREFIXES:
            if size >= least:
                return f"{value / least:.3g} {prefix}".strip()
    if size >= 1_000.0:
        return f"{value:,.0f}"
    return f"{value:.1f}".removesuffix(".0") if size >= 100.0 else f"{value:.3g}"


def bare(value: float, unit: str = "") -> str:
    """The same without a unit that is a word: what a table says in its margin."""
    return number(value, unit if unit[:1] in ("%", "x") else "").removesuffix(" a tick")


def apart(mean: float, half: float, unit: str = "") -> tuple[str, str]:
    """A mean and half of its interval, the half in two digits and both in as many decimals; the
    mean with the marks of `bare`, the half without, and empty where there is none."""
    factor = 100.0 if unit.startswith("%") else 1.0
    mark = "%" if unit.startswith("%") else TIMES if unit.startswith("x") else ""
    size = abs(factor * mean)
    if not (math.isfinite(mean) and math.isfinite(half)) or not 1e-3 <= size < 1e6:
        return bare(mean, unit), bare(factor * half, "") if math.isfinite(half) else ""
    if factor * half < _SURE * size:
        return bare(mean, unit), "0"
    wanted = 1 - math.floor(math.log10(factor * half))
    most = _SIGNIFICANT - 1 - math.floor(math.log10(size))
    decimals = max(min(wanted, most), 0)
    told = f"{factor * mean:,.{decimals}f}{mark}"
    return told.replace("-", MINUS), f"{factor * half:,.{decimals}f}"


def clock(seconds: float, until_s: float) -> str:
    """A time of a run that lasts `until_s`, as `clock_unit` says."""
    whole = round(seconds)
    big, small = divmod(whole if until_s < _HOUR_S else whole // 60, 60)
    return f"{big}:{small:02d}"


def clock_unit(until_s: float) -> str:
    """What the times of a run are told in that lasts so long."""
    return "min:s" if until_s < _HOUR_S else "h:min"


def lasting(seconds: float) -> str:
    """How long something takes, such as 45 s, 33 min 20 s or 24 h."""
    whole = round(seconds)
    parts = (whole // 3_600, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"


def time_ticks(low: float, high: float, about: int = 7) -> list[float]:
    """Round times within, in seconds."""
    wanted = (high - low) / about
    days = [_DAY_S * each for each in (0.5, 1, 2, 7, 30)]
    step = next((each for each in (*_TIME_STEPS_S, *days) if each >= wanted), 90 * _DAY_S)
    first = math.ceil(low / step)
    return [step * each for each in range(first, math.floor(high / step) + 1)]


def _ticks(scale: Scale, about: int) -> list[float]:
    wanted = (scale.high - scale.low) / about
    power = 10.0 ** math.floor(math.log10(wanted))
    step = next(each * power for each in _STEPS if each * power >= wanted * 0.999)
    first = math.ceil(scale.low / step - 1e-9)
    return [step * each for each in range(first, math.floor(scale.high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    apart, kept = math.log(high / low) / 9.0, list[float]()  # or their names would touch
    for marks in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), tuple(map(float, range(1, 10)))):
        for tick in (mark * 10.0**power for power in powers for mark in marks):
            if low <= tick <= high and all(abs(math.log(tick / each)) > apart for each in kept):
                kept.append(tick)
        if len(kept) >= 3:
            return sorted(kept)[:: math.ceil(len(kept) / 7)]
    return _ticks(Scale(low, high, 0.0, 1.0), 4)


Written = Callable[[float], str]

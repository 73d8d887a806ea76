"""What files write in a form of their own: money in dollars, weights by name, schedules.

A `Band` is {out_usd = [floor, list, ceiling]}, a `Rate` {out_usd = 0.4}; `in_usd` and `out_usd`
are dollars per million tokens, `call_usd` dollars per call. Weights are the name of a preset or a
table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from broker.core.catalog import Band
from broker.core.requirements import PRESETS, Weights
from pricing.book import Rate
from pricing.money import MAX_RATE_CALL_NANOS, MAX_RATE_MICROS
from pricing.schedule import Schedule, ScheduleMalformed, schedule_of
from simulations.files.lines import Path
from simulations.files.scalars import Fault, known, scalar

MONEY: Mapping[str, tuple[str, int, int]] = {
    "in_usd": ("in_micros", 10**6, MAX_RATE_MICROS),
    "out_usd": ("out_micros", 10**6, MAX_RATE_MICROS),
    "call_usd": ("call_nanos", 10**9, MAX_RATE_CALL_NANOS),
}
"""By a file's name of it: the end of the field's name, units in a dollar, the most of them."""
BOUNDS = ("floor", "list", "ceiling")
SCHEDULE = ("steps", "utc_offset_minutes")


def band(plain: object, path: Path) -> Band:
    """Return a price band. Raises Fault."""
    fields: dict[str, int] = {}
    for name, value in known(plain, MONEY, path).items():
        place = (*path, name)
        if not isinstance(value, list) or len(value) != len(BOUNDS):
            raise Fault(place, f"must be an array of {', '.join(BOUNDS)}.")
        units = [_units(name, each, (*place, index)) for index, each in enumerate(value)]
        if not 0 < units[0] <= units[1] <= units[2]:
            raise Fault(place, "must be 0 < floor <= list <= ceiling.")
        for bound, each in zip(BOUNDS, units, strict=True):
            fields[f"{bound}_{MONEY[name][0]}"] = each
    if not fields:
        raise Fault(path, f"must have one of {', '.join(MONEY)}.")
    return Band(**fields)


def rate(plain: object, path: Path) -> Rate:
    """Return a rate. Raises Fault."""
    given = known(plain, MONEY, path).items()
    units = {name: _units(name, value, (*path, name)) for name, value in given}
    return Rate(*(units.get(name, 0) for name in MONEY))


def weights(plain: object, path: Path) -> Weights:
    """Return weights. Raises Fault."""
    if isinstance(plain, str):
        if plain not in PRESETS:
            raise Fault(path, f"must be one of {', '.join(PRESETS)}, or a table.")
        return PRESETS[plain]
    given = known(plain, Weights.__struct_fields__, path).items()
    parts = {name: scalar(float, value, (*path, name)) for name, value in given}
    for name, part in parts.items():
        if not 0.0 <= part < math.inf:
            raise Fault((*path, name), "must not be below zero, and finite.")
    return msgspec.structs.replace(Weights(), **parts)


def schedule(plain: object, path: Path) -> Schedule:
    """Return a schedule, written as the broker's own API takes it. Raises Fault."""
    given = known(plain, SCHEDULE, path)
    steps = given.get("steps")
    if not isinstance(steps, list):
        raise Fault(path, "must have an array 'steps'.")
    offset = scalar(int, given.get("utc_offset_minutes", 0), (*path, "utc_offset_minutes"))
    try:
        return schedule_of(steps, offset)
    except ScheduleMalformed as error:
        raise Fault((*path, "steps"), f"{error}.") from None


SPECIAL: Mapping[Any, Callable[[object, Path], Any]] = {
    Band: band,
    Rate: rate,
    Weights: weights,
    Schedule: schedule,
}


def _units(name: str, plain: object, path: Path) -> int:
    """A number of dollars in the whole units of its field, by the digits as they were written."""
    usd = Decimal(repr(scalar(float, plain, path)))
    _, per_usd, most = MONEY[name]
    if not usd.is_finite() or not 0 <= usd * per_usd <= most:
        raise Fault(path, f"must lie between 0 and {most // per_usd}.")
    if usd * per_usd != int(usd * per_usd):
        raise Fault(path, f"must have at most {len(str(per_usd)) - 1} decimals.")
    return int(usd * per_usd)

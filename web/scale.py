"""Places a price on its endpoint's band, on a logarithmic scale because prices move by factors."""

from __future__ import annotations

import math
from dataclasses import dataclass

from broker.core.catalog import Band
from pricing.book import Rate
from web import words


@dataclass(frozen=True, slots=True)
class Scale:
    """The band of the headline price; dollars, and shares of the way from floor to ceiling."""

    floor: float
    listed: float
    ceiling: float
    listed_share: float
    now_share: float | None


def scale(band: Band, rate: Rate | None) -> Scale:
    """Return where list price and present price lie."""
    floor, listed, ceiling = (
        words.headline(each)
        for each in (
            Rate(band.floor_in_micros, band.floor_out_micros, band.floor_call_nanos),
            Rate(band.list_in_micros, band.list_out_micros, band.list_call_nanos),
            Rate(band.ceiling_in_micros, band.ceiling_out_micros, band.ceiling_call_nanos),
        )
    )
    now = None if rate is None else _share(words.headline(rate), floor, ceiling)
    return Scale(floor, listed, ceiling, _share(listed, floor, ceiling), now)


def _share(price: float, floor: float, ceiling: float) -> float:
    if floor <= 0 or ceiling <= floor or price <= 0:
        return 0.0
    return min(max(math.log(price / floor) / math.log(ceiling / floor), 0.0), 1.0)

"""The one number by which an endpoint's rates move together: the logarithm of price over list.

    rate = list * exp(scarcity), each inside its own band

A provider who changes its list price keeps the scarcity that its load has earned. Scarcity runs as
far as the widest of the three bands (`Bands.reach`), so that no state winds up beyond what a price
can show.
"""

from __future__ import annotations

import numpy as np

from pricing.book import FloatArray, PriceBook
from pricing.snapshot import Bands


def rates_at(bands: Bands, scarcity: FloatArray) -> FloatArray:
    """The rates of shape (3, endpoints) at a scarcity for each endpoint, within the bands."""
    rates: FloatArray = np.clip(bands.listed * np.exp(scarcity), bands.floor, bands.ceiling)
    return rates


def scarcity_of(book: PriceBook, bands: Bands) -> FloatArray:
    """The scarcity whose rates are the book's, up to rounding; NaN where it has no price."""
    rates = book.matrix(len(bands))
    usable = (rates > 0) & (bands.listed > 0)
    listed = np.where(usable, bands.listed, 1)
    each = np.log(np.where(usable, rates, 1) / listed)
    # Of rates that their own bands did not hold back the largest was rounded least; where all were
    # held back, it is the one that went furthest.
    free = usable & (rates > bands.floor) & (rates < bands.ceiling)
    telling = np.where(free.any(axis=0), np.where(free, rates, 0), np.abs(each)).argmax(axis=0)
    told = np.take_along_axis(each, telling[np.newaxis], axis=0)[0]
    scarcity: FloatArray = np.where(usable.any(axis=0), told, np.nan)
    return scarcity


def price_of(book: PriceBook, bands: Bands) -> FloatArray:
    """One price that all rates have a part in, whatever the list prices are; NaN for none."""
    total = (book.rate_in_micros + book.rate_out_micros + book.rate_call_nanos).astype(np.float64)
    total[total == 0.0] = np.nan
    return fitted(total, len(bands))


def fitted(array: FloatArray, size: int) -> FloatArray:
    """The array at another length, cut or filled up with NaN."""
    if array.size == size:
        return array
    longer = np.full(size, np.nan)
    shared = min(size, array.size)
    longer[:shared] = array[:shared]
    return longer

"""One provider's band cannot stop everybody's prices: what registration takes, all bands bear."""

from __future__ import annotations

from dataclasses import astuple
from itertools import product

import pytest

from broker.core.terms import band_of
from broker.errors import RequestMalformed
from pricing.snapshot import Bands
from provider_sdk.protocol import CallBand, TokenBand

EXTREMES = ("0", "0.000001", "1", "1000000", "1000000.000001", "999999999")


def taken(price: TokenBand | CallBand) -> bool:
    """True for a band that registration takes, and then the price tick must too."""
    try:
        band = band_of(price, "price")
    except RequestMalformed:
        return False
    Bands.from_rows({0: astuple(band)})
    return True


def test_a_band_that_is_taken_by_the_call_is_one_that_the_tick_bears() -> None:
    prices = product(EXTREMES, repeat=3)
    took = [each for each in prices if taken(CallBand(**named("call", each)))]
    assert ("0.000001", "1", "1000000") in took
    assert {bound for each in took for bound in each} == {"0.000001", "1", "1000000"}


@pytest.mark.parametrize("other", [("0", "0", "0"), ("0.000001", "1", "1000000")])
def test_a_band_that_is_taken_by_the_token_is_one_that_the_tick_bears(
    other: tuple[str, ...],
) -> None:
    prices = product(EXTREMES, repeat=3)
    took = [each for each in prices if taken(TokenBand(**named("in", each), **named("out", other)))]
    assert ("0.000001", "1", "1000000") in took
    assert (("0", "0", "0") in took) == (other[0] != "0")
    assert {bound for each in took for bound in each} <= {"0", "0.000001", "1", "1000000"}


def named(side: str, bounds: tuple[str, ...]) -> dict[str, str]:
    return dict(zip((f"floor_{side}", f"list_{side}", f"ceiling_{side}"), bounds, strict=True))

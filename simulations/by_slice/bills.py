"""What many calls come to, by the broker's recipes of metering and of charge lines, in columns.

`Visit` does the same for one call with the recipes themselves; a test holds both to the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker.core.metering import END_TOKENS
from pricing.book import IntArray
from pricing.money import BPS_WHOLE, PICOS_PER_NANO
from simulations.visit import BYTES_PER_TOKEN


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What attempts delivered, and on what terms; arrays of one length."""

    tokens_in: IntArray
    made: IntArray
    """Tokens of the answer that came."""
    claimed: IntArray
    """Tokens of the answer as the provider says."""
    tokens_in_bound: IntArray
    tokens_out_max: IntArray
    generates: NDArray[np.bool_]
    rates: IntArray
    """(3, calls): as in a price book."""
    take_bps: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Bills:
    """What is paid; nothing for what delivered nothing."""

    tokens_in: IntArray
    tokens_out: IntArray
    charge_nanos: IntArray
    take_nanos: IntArray


def metered_out(
    made: IntArray, claimed: IntArray, tokens_out_max: IntArray, generates: NDArray[np.bool_]
) -> IntArray:
    """Tokens of answers that are paid for, of what was made and what is claimed."""
    bound = np.minimum(BYTES_PER_TOKEN * made + END_TOKENS, tokens_out_max)
    return np.maximum(np.minimum(claimed, bound), 0) * generates


def bill(work: Work) -> Bills:
    """Meter and price. Costs must stay below 2^63 pico-dollars."""
    tokens_out = metered_out(work.made, work.claimed, work.tokens_out_max, work.generates)
    nothing = work.generates & ((work.made == 0) | (tokens_out == 0))
    tokens_in = np.where(nothing, 0, np.minimum(work.tokens_in, work.tokens_in_bound))
    tokens_out = np.where(nothing, 0, tokens_out)
    rate_in, rate_out, rate_call = work.rates
    picos = tokens_in * rate_in + tokens_out * rate_out + rate_call * PICOS_PER_NANO
    charge = np.where(tokens_in + tokens_out == 0, 0, -(-picos // PICOS_PER_NANO))
    return Bills(tokens_in, tokens_out, charge, charge * work.take_bps // BPS_WHOLE)

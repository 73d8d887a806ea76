"""What one request costs: expected over many candidates at once, and the exact most of one.

    picos = tokens_in * rate_in + tokens_out * rate_out + 1,000 * rate_call

An expectation ranks candidates and may be a float; a ceiling is money that will be held, and is
exact. Each attempt rounds up on its own, so the hold of a plan is the sum of its ceilings.
"""

from __future__ import annotations

import numpy as np

from pricing.book import FloatArray, IntArray, PriceBook, Rate
from pricing.money import PICOS_PER_NANO, charge_nanos


def expected_picos(
    book: PriceBook,
    numbers: IntArray,
    tokens_in: float | FloatArray,
    tokens_out: float | FloatArray,
) -> FloatArray:
    """Expected price in pico-dollars for each candidate number; infinite where there is no price.

    Token counts are one for all candidates or one per candidate, as their tokenizers differ.
    """
    known = (numbers >= 0) & (numbers < len(book))
    if not known.all():
        cost = np.full(numbers.shape, np.inf)
        among = (_of_known(tokens_in, known), _of_known(tokens_out, known))
        cost[known] = expected_picos(book, numbers[known], *among)
        return cost
    rate_in = book.rate_in_micros[numbers].astype(np.float64)
    rate_out = book.rate_out_micros[numbers].astype(np.float64)
    rate_call = book.rate_call_nanos[numbers].astype(np.float64)
    picos = tokens_in * rate_in + tokens_out * rate_out + PICOS_PER_NANO * rate_call
    priced = rate_in + rate_out + rate_call > 0.0
    expected: FloatArray = np.where(priced, picos, np.inf)
    return expected


def ceiling_nanos(rate: Rate, tokens_in_bound: int, tokens_out_max: int) -> int:
    """The most one attempt at this rate can be charged, in nano-dollars, given bounds on tokens."""
    return charge_nanos(rate.picos(tokens_in_bound, tokens_out_max))


def _of_known(tokens: float | FloatArray, known: np.ndarray) -> float | FloatArray:
    return tokens[known] if isinstance(tokens, np.ndarray) and tokens.ndim else tokens

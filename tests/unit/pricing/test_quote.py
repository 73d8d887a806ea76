from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pricing.book import PriceBook, Rate
from pricing.quote import ceiling_nanos, expected_picos


def book() -> PriceBook:
    rates = np.array([[150_000, 600_000, 0], [0, 0, 2_000], [0, 0, 0]], dtype=np.int64)
    return PriceBook.from_matrix(1, rates.T)


def numbers(*some: int) -> np.ndarray:
    return np.array(some, dtype=np.int64)


def test_expected_cost_of_candidates_in_the_order_asked() -> None:
    cost = expected_picos(book(), numbers(1, 0), 1_000.0, 500.0)
    assert cost.tolist() == [2_000_000.0, 450_000_000.0]


def test_each_candidate_may_count_tokens_its_own_way() -> None:
    cost = expected_picos(book(), numbers(0, 0), np.array([1.0, 2.0]), np.array([0.0, 1.0]))
    assert cost.tolist() == [150_000.0, 900_000.0]


def test_what_has_no_price_is_infinitely_dear() -> None:
    tokens = np.array([1.0, 2.0, 3.0, 4.0])
    cost = expected_picos(book(), numbers(2, -1, 0, 3), tokens, 0.0)
    assert cost.tolist() == [np.inf, np.inf, 450_000.0, np.inf]
    assert expected_picos(book(), numbers(9), 1.0, 1.0).tolist() == [np.inf]
    assert expected_picos(book(), numbers(), 1.0, 1.0).tolist() == []


def test_a_ceiling_rounds_up_to_a_whole_nano_dollar() -> None:
    assert ceiling_nanos(Rate(1, 0, 0), 1, 0) == 1
    assert ceiling_nanos(Rate(150_000, 600_000, 0), 1_000, 500) == 450_000
    assert ceiling_nanos(Rate(0, 0, 2_000), 10**9, 10**9) == 2_000


tokens = st.integers(0, 10**7)


@given(tokens, tokens, tokens, tokens)
def test_less_use_than_bounded_never_costs_more_than_the_ceiling(
    used_in: int, used_out: int, spare_in: int, spare_out: int
) -> None:
    rate = book().rate(0)
    charge = ceiling_nanos(rate, used_in, used_out)
    assert charge <= ceiling_nanos(rate, used_in + spare_in, used_out + spare_out)


@given(tokens, tokens)
def test_expectation_agrees_with_the_exact_price(tokens_in: int, tokens_out: int) -> None:
    exact = book().rate(0).picos(tokens_in, tokens_out)
    expected = expected_picos(book(), numbers(0), tokens_in, tokens_out)
    np.testing.assert_allclose(expected, [exact], rtol=1e-12)

"""The one number that a book's rates tell, and the one price that they come to."""

from __future__ import annotations

import numpy as np
import pytest

from pricing.book import PriceBook
from pricing.scarcity import price_of, scarcity_of
from tests.unit.pricing.markets import Row, bands


@pytest.mark.parametrize(
    ("row", "rates", "factor"),
    [
        # The band holds the rate in back at 3 million, and at 1; the rate out says how far it goes.
        ((1_000_000, 2_000_000, 3_000_000, 1, 1_000, 9_000, 0, 0, 0), (3_000_000, 3_000, 0), 3.0),
        ((1_000_000, 2_000_000, 9_000_000, 1, 1_000, 9_000, 0, 0, 0), (1_000_000, 100, 0), 0.1),
        # Of those that are free the largest is rounded least.
        ((1, 1_000_000, 9_000_000, 1, 3, 9, 0, 0, 0), (1_500_000, 4, 0), 1.5),
        # All are held back: the one that went furthest tells.
        ((1_000_000, 2_000_000, 3_000_000, 100, 100, 500, 0, 0, 0), (3_000_000, 500, 0), 5.0),
        # The smallest prices there are.
        ((1, 2, 4, 0, 0, 0, 0, 0, 0), (1, 0, 0), 0.5),
        ((1, 1, 4, 0, 0, 0, 0, 0, 0), (2, 0, 0), 2.0),
        # What its band no longer prices tells nothing.
        ((1, 1_000, 9_000, 0, 0, 0, 0, 0, 0), (2_000, 5, 0), 2.0),
    ],
)
def test_the_rate_that_tells_most_of_scarcity_is_believed(
    row: Row, rates: tuple[int, int, int], factor: float
) -> None:
    book = PriceBook.from_matrix(1, np.array([rates]).T)
    assert np.exp(scarcity_of(book, bands(row))) == pytest.approx([factor])


def test_where_there_is_no_price_there_is_no_scarcity() -> None:
    of = bands((1, 2, 3, 0, 0, 0, 0, 0, 0), (0,) * 9)
    book = PriceBook.from_matrix(1, np.array([[0, 5], [0, 0], [0, 0]]))
    assert np.isnan(scarcity_of(book, of)).all()


def test_all_rates_have_a_part_in_the_one_price() -> None:
    of = bands(*[(1, 2, 3) * 3] * 4)
    book = PriceBook.from_matrix(1, np.array([[1, 1, 0], [20, 3, 0], [300, 7, 0]]))
    np.testing.assert_array_equal(price_of(book, of), [321.0, 11.0, np.nan, np.nan])

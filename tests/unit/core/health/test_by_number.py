"""Floats by number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.core.health.by_number import ByNumber


@given(st.lists(st.tuples(st.integers(0, 300), st.floats(0.0, 1e12))))
def test_what_is_told_of_a_number_is_returned_and_zero_of_all_others(told):
    kept = ByNumber()
    for number, value in told:
        kept.put(number, value)
    expected = dict(told)
    assert [kept.get(number) for number in range(310)] == [
        expected.get(number, 0.0) for number in range(310)
    ]

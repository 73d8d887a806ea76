"""A course in a report has no holes but where an endpoint was away."""

from __future__ import annotations

import math

import numpy as np

from simulations.measured.series import _means


def test_a_span_without_a_tick_takes_over_what_was_before_and_who_is_away_leaves_a_gap() -> None:
    table = {"at_s": np.array([2.0, 6.0, 9.0]), "endpoint": np.zeros(3, dtype=np.int16)}
    values = np.array([1.0, math.nan, 3.0])
    edges = np.linspace(0.0, 10.0, 11)
    assert _means(table, values, edges, 1) == [
        [None, 1.0, 1.0, 1.0, 1.0, None, None, None, 3.0, 3.0]
    ]

"""Refusals per second, from a count that only rises."""

from __future__ import annotations

import numpy as np

from broker.live.connection import BACKOFF_S, BACKOFF_S_MAX, backoff_s
from broker.live.loads import RefusalMeter


def counts(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_the_rate_is_the_rise_over_the_time():
    meter = RefusalMeter()
    assert meter.per_s(counts(5, 0), 10.0).tolist() == [0.0, 0.0]
    assert meter.per_s(counts(9, 1), 12.0).tolist() == [2.0, 0.5]
    assert meter.per_s(counts(9, 1), 13.0).tolist() == [0.0, 0.0]


def test_the_count_may_grow_by_deployments():
    meter = RefusalMeter()
    meter.per_s(counts(1), 1.0)
    assert meter.per_s(counts(1, 3), 2.0).tolist() == [0.0, 3.0]


def test_two_looks_at_one_instant_see_the_same_rate():
    meter = RefusalMeter()
    meter.per_s(counts(0), 1.0)
    meter.per_s(counts(4), 2.0)
    assert meter.per_s(counts(5), 2.0).tolist() == [4.0]
    assert meter.per_s(counts(5), 3.0).tolist() == [1.0], "what came at that instant is not lost"


def test_the_array_handed_in_may_change_afterwards():
    meter, refused = RefusalMeter(), counts(1)
    meter.per_s(refused, 1.0)
    refused[0] = 3
    assert meter.per_s(refused, 2.0).tolist() == [2.0]


def test_the_pause_grows_to_its_maximum():
    pauses = [backoff_s(failures) for failures in range(50)]
    assert pauses[0] == BACKOFF_S
    assert pauses == sorted(pauses)
    assert pauses[-1] == BACKOFF_S_MAX


def test_a_rate_is_of_its_window_at_least_however_often_it_is_asked_for():
    meter = RefusalMeter(1.0)
    meter.per_s(counts(0), 1.0)
    assert meter.per_s(counts(3), 1.5).tolist() == [0.0]
    assert meter.per_s(counts(4), 2.0).tolist() == [4.0]
    assert meter.per_s(counts(9), 2.9).tolist() == [4.0]
    assert meter.per_s(counts(9), 3.0).tolist() == [5.0]

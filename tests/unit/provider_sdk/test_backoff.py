"""Pauses grow to a bound and begin small again."""

from __future__ import annotations

import random

from provider_sdk.backoff import Backoff


def test_pauses_double_to_the_bound_and_begin_again_after_a_reset() -> None:
    backoff = Backoff(1.0, 5.0, random.Random(1))
    for most_s in (1.0, 2.0, 4.0, 5.0, 5.0, 5.0):
        assert most_s / 2 <= backoff.next_s() <= most_s
    backoff.reset()
    assert 0.5 <= backoff.next_s() <= 1.0

"""Why endpoints were rejected, in words."""

from __future__ import annotations

import numpy as np

from broker.core.candidates.eligibility import Rejection
from broker.core.candidates.reasons import WORDS, counted


def test_every_reason_has_words_of_its_own() -> None:
    assert WORDS.keys() == set(Rejection)
    assert len(set(WORDS.values())) == len(Rejection)


def test_reasons_are_counted_in_words_the_most_first() -> None:
    fell = [Rejection.FULL, Rejection.REGION, Rejection.REGION]
    assert counted(np.array(fell)) == "outside the asked region (2), full (1)"

"""What an examination says of a claim: the mean score, how sure it is, and whether it refutes.

The interval is Wilson's of 95 % ("Probable inference, the law of succession, and statistical
inference", 1927). For graded scores, which vary less than right and wrong do, it is too wide.
"""

from __future__ import annotations

import enum
import math

import msgspec

Z = 1.959964
ENOUGH = 0.5
"""Where fewer of the prompts had an answer, nothing is said of quality."""


class Word(enum.StrEnum):
    """What an examination says of a claimed quality."""

    REFUTED = "refuted"
    """Even the upper end of the interval is below the claim."""
    UPHELD = "upheld"
    """The claim is within or below the interval."""
    UNCLAIMED = "unclaimed"


class Verdict(msgspec.Struct, frozen=True):
    """A mean of scores with its interval."""

    score: float
    low: float
    high: float
    scored: int

    def on(self, claimed: float | None) -> Word:
        """Return what this says of a claim."""
        if claimed is None:
            return Word.UNCLAIMED
        return Word.REFUTED if self.high < claimed else Word.UPHELD


def judge(score: float, scored: int) -> Verdict:
    """Return the verdict of a mean over `scored` answers, at least one."""
    assert scored > 0, "of nothing there is no verdict"
    square = Z * Z / scored
    middle = (score + square / 2.0) / (1.0 + square)
    reach = Z / (1.0 + square) * math.sqrt(score * (1.0 - score) / scored + square / (4 * scored))
    return Verdict(score, max(middle - reach, 0.0), min(middle + reach, 1.0), scored)

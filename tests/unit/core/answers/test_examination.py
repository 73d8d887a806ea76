"""An examination refutes a claim only where even the upper end of its interval is below it."""

from __future__ import annotations

import pytest

from broker.core.answers.examination import Word, judge


@pytest.mark.parametrize(
    ("score", "scored", "low", "high"),
    [
        (0.5, 40, 0.352, 0.648),
        (0.0, 10, 0.0, 0.278),
        (1.0, 10, 0.722, 1.0),
        (0.9, 400, 0.867, 0.926),
    ],
)
def test_the_interval_is_wilsons(score: float, scored: int, low: float, high: float) -> None:
    verdict = judge(score, scored)
    assert (verdict.low, verdict.high) == (
        pytest.approx(low, abs=1e-3),
        pytest.approx(high, abs=1e-3),
    )


@pytest.mark.parametrize(
    ("claimed", "word"),
    [(0.9, Word.REFUTED), (0.6, Word.UPHELD), (0.1, Word.UPHELD), (None, Word.UNCLAIMED)],
)
def test_a_claim_is_refuted_by_what_is_surely_below_it(claimed: float | None, word: Word) -> None:
    assert judge(0.5, 40).on(claimed) is word

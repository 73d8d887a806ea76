"""How long answers are, by domain and endpoint: moving averages of what calls came to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from broker.core.columns import Floats

ANSWERS_KEPT: Final = 200.0
"""The average is over about so many answers, the newest weighing most."""
PRIOR: Final = 10.0
"""What is usual in a domain counts as so many answers of an endpoint."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Answers of one endpoint about one domain."""

    domain: str | None
    endpoint: int
    answers: int
    tokens_out: int


def length_of(tokens_out: int, choices: int, limit: int) -> int | None:
    """Return the tokens of each of a call's answers, in the mean; None where there are none, or as
    many as the limit allows: nobody knows how long an answer that was cut would have been."""
    if not 0 < tokens_out < limit * choices:
        return None
    return tokens_out if choices == 1 else max(round(tokens_out / choices), 1)


class AnswerLengths:
    """Takes batches as they come."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str | None, int], tuple[float, float]] = {}

    def take(self, batches: Iterable[Batch]) -> None:
        """Add answers; older ones weigh less the more come after them."""
        for each in batches:
            key = each.domain, each.endpoint
            count, tokens = self._kept.get(key, (0.0, 0.0))
            left = max(1.0 - each.answers / ANSWERS_KEPT, 0.0)
            self._kept[key] = count * left + each.answers, tokens * left + each.tokens_out

    def table(self, places: Mapping[str, int], size: int) -> Floats:
        """Return tokens of an answer by domain and endpoint, the last row of no domain.

        Who is new has what is usual in the domain; NaN while nothing is known at all.
        """
        counts, sums = np.zeros((2, len(places) + 1, size))
        for (domain, endpoint), (count, tokens) in self._kept.items():
            if endpoint < size:
                row = places.get(domain or "", len(places))
                counts[row, endpoint] += count
                sums[row, endpoint] += tokens
        if not counts.any():
            return np.full(counts.shape, np.nan)
        overall = sums.sum() / counts.sum()
        usual = (sums.sum(axis=1) + PRIOR * overall) / (counts.sum(axis=1) + PRIOR)
        return np.asarray((sums + PRIOR * usual[:, None]) / (counts + PRIOR))

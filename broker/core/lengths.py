"""How long answers are, by domain and endpoint: moving averages of what calls came to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from broker.core.columns import Floats
from broker.core.syllabus import DOMAINS_MAX

ANSWERS_KEPT: Final = 200.0
"""The average is over about so many answers, the newest weighing most."""
PRIOR: Final = 10.0
"""What is usual in a domain counts as so many answers of an endpoint."""
NAMES_MAX: Final = DOMAINS_MAX + 1
"""Of so many domains at most something is kept, those told of last: callers name what they like."""


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
    """Takes batches as they come. A domain takes 16 to 24 bytes for each endpoint; as entries of
    a dictionary it took 156."""

    def __init__(self) -> None:
        self._kept: dict[str | None, Floats] = {}
        """Answers and their tokens, older ones weighing less: of shape (2, endpoints or more)."""

    def take(self, batches: Iterable[Batch]) -> None:
        """Add answers; older ones weigh less the more come after them."""
        for each in batches:
            kept = self._of(each.domain, each.endpoint)[:, each.endpoint]
            kept *= max(1.0 - each.answers / ANSWERS_KEPT, 0.0)
            kept += each.answers, each.tokens_out

    def _of(self, domain: str | None, endpoint: int) -> Floats:
        """Return what is kept of a domain, with room for the endpoint."""
        kept = self._kept.pop(domain, None)
        size = 0 if kept is None else kept.shape[1]
        if kept is None or endpoint >= size:
            wider = np.zeros((2, endpoint + 1 + endpoint // 2))
            wider[:, :size] = 0.0 if kept is None else kept
            kept = wider
        self._kept[domain] = kept
        if len(self._kept) > NAMES_MAX:
            del self._kept[next(iter(self._kept))]
        return kept

    def table(self, places: Mapping[str, int], size: int) -> Floats:
        """Return tokens of an answer by domain and endpoint, the last row of no domain.

        Who is new has what is usual in the domain; NaN while nothing is known at all.
        """
        told = np.zeros((2, len(places) + 1, size))
        for domain, kept in self._kept.items():
            common = min(size, kept.shape[1])
            told[:, places.get(domain or "", len(places)), :common] += kept[:, :common]
        counts, sums = told
        if not counts.any():
            return np.full(counts.shape, np.nan)
        overall = sums.sum() / counts.sum()
        usual = (sums.sum(axis=1) + PRIOR * overall) / (counts.sum(axis=1) + PRIOR)
        return np.asarray((sums + PRIOR * usual[:, None]) / (counts + PRIOR))

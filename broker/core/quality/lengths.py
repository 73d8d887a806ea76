"""How long answers are, by domain and endpoint: moving averages of what calls came to."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from broker.core.columns import Floats
from broker.core.quality.syllabus import DOMAINS_MAX

ANSWERS_KEPT: Final = 200.0
"""The average is over about so many answers, the newest weighing most."""
PRIOR: Final = 10.0
"""What is usual in a domain counts as so many answers of an endpoint."""
NAMES_MAX: Final = DOMAINS_MAX + 1
"""Of so many domains at most something is kept, those told of last: callers name what they like."""

BLOCK: Final = 32
"""Endpoints that are kept together: most answer about few domains."""
NOWHERE: Final = 0
"""A block that is nobody's, of zeros."""


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
    """Takes batches as they come. Of a domain, BLOCK endpoints take 256 bytes once one of them has
    answered, and 4 before; as columns of all endpoints they took 512 and more."""

    def __init__(self) -> None:
        self._blocks: dict[str | None, array[int]] = {}
        """By domain: where each of its blocks is kept; NOWHERE before it is."""
        self._kept = np.zeros((1, 2, BLOCK), dtype=np.float32)
        """Answers and their tokens, older ones weighing less, by block."""
        self._view()
        self._used = NOWHERE + 1
        self._free: list[int] = []

    def take(self, batches: Iterable[Batch]) -> None:
        """Add answers; older ones weigh less the more come after them."""
        for each in batches:
            number, place = divmod(each.endpoint, BLOCK)
            answers = self._block(each.domain, number) * 2 * BLOCK + place
            tokens, kept = answers + BLOCK, self._kept_at
            fade = max(1.0 - each.answers / ANSWERS_KEPT, 0.0)
            kept[answers] = kept[answers] * fade + each.answers
            kept[tokens] = kept[tokens] * fade + each.tokens_out

    def _block(self, domain: str | None, number: int) -> int:
        """Return where a domain's block is kept, which it is from now on."""
        blocks = self._blocks.pop(domain, None)
        if blocks is None:
            blocks = array("i")
            if len(self._blocks) == NAMES_MAX:
                self._forget(next(iter(self._blocks)))
        self._blocks[domain] = blocks
        if number >= len(blocks):
            blocks.extend([NOWHERE] * (number + 1 - len(blocks)))
        if blocks[number] == NOWHERE:
            blocks[number] = self._room()
        return blocks[number]

    def _forget(self, domain: str | None) -> None:
        given = [each for each in self._blocks.pop(domain) if each != NOWHERE]
        self._kept[given] = 0.0
        self._free += given

    def _view(self) -> None:
        # The same memory, one number at a time: numpy takes four times as long for that.
        self._kept_at: memoryview[float] = self._kept.data.cast("B").cast("f")

    def _room(self) -> int:
        """Return where nothing is kept yet."""
        if self._free:
            return self._free.pop()
        if self._used == len(self._kept):
            wider = np.zeros((self._used + self._used // 8 + 8, 2, BLOCK), dtype=np.float32)
            wider[: self._used] = self._kept
            self._kept = wider
            self._view()
        self._used += 1
        return self._used - 1

    def table(self, places: Mapping[str, int], size: int) -> Floats:
        """Return tokens of an answer by domain and endpoint, the last row of no domain.

        Who is new has what is usual in the domain; NaN while nothing is known at all.
        """
        shape = len(places) + 1, size
        counts, sums = np.zeros(shape), np.zeros(shape)
        for domain, blocks in self._blocks.items():
            kept = self._kept[np.frombuffer(blocks, dtype=np.intc)]
            row, common = places.get(domain or "", len(places)), min(size, len(blocks) * BLOCK)
            counts[row, :common] += kept[:, 0].reshape(-1)[:common]
            sums[row, :common] += kept[:, 1].reshape(-1)[:common]
        if not counts.any():
            return np.full(shape, np.nan)
        overall = sums.sum() / counts.sum()
        usual = (sums.sum(axis=1) + PRIOR * overall) / (counts.sum(axis=1) + PRIOR)
        # In place, for a large market's tables are large.
        sums += PRIOR * usual[:, None]
        counts += PRIOR
        return np.divide(sums, counts, out=sums)

"""Groups of prompts that look alike, mean much the same, and may be of the same domains.

A prompt's look is its shape, the odds of its domains, and what it means, which counts about as much
as the two together. What models do within a domain depends on its prompts' shapes (how long, how
much to be counted, which form of answer) as well as on what they speak of; and where two domains
are easily taken for each other, groups hold what models do between them. Prompts are grouped around
centres, several times over, for where a group ends is chance. That takes ten times as long as to
learn what the domains are: so groups go on with the recogniser that they were made with, and what
was counted in them, until those of newer domains are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from broker.core.columns import Floats, Numbers
from broker.core.quality.clusters import group
from broker.core.quality.domains import Look, Recogniser, among_held_out, some

GROUPINGS: Final = 8
GROUPS_MAX: Final = 64
EXAMPLES_PER_GROUP: Final = 8
ODDS_REACH: Final = 6.0
"""To be surely of one domain instead of none is as far as so many deviations of one number of the
shape."""
MEANING_REACH: Final = 0.4
"""A number of the meaning, of which there are many, counts so much of one of the shape."""
_GOLDEN: Final = (5.0**0.5 - 1.0) / 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Each grouping has as many groups; they are counted on from grouping to grouping."""

    recogniser: Recogniser
    """By whose odds prompts look; those who are served may go by a newer one."""
    centres: NDArray[np.float32]
    """(groups of all groupings, length of an appearance); half the numbers of a double's bytes, for
    each call of a prompt reads all of them."""
    halves: NDArray[np.float32]
    """(groups of all groupings,): half of each centre's squared length."""
    key: str = ""
    """Of what they were made of: groups of the same number are the same where keys are."""

    @property
    def count(self) -> int:
        """So many there are, of all groupings."""
        return len(self.centres)

    def of(self, vectors: Floats) -> Numbers:
        """Return the nearest group of each grouping: (vectors, GROUPINGS); as an encoder made
        them."""
        return self.of_with_odds(vectors)[0]

    def of_with_odds(self, vectors: Floats) -> tuple[Numbers, Floats]:
        """Return the same, and the odds of the recogniser's domains by which they look so."""
        standard = self.recogniser.standardise(vectors)
        odds = self.recogniser.among_known(standard)
        return self.nearest(standard, odds), odds

    def nearest(self, standard: Floats, odds: Floats) -> Numbers:
        """Return the same of vectors as the recogniser standardised them, and of their odds."""
        seen = _appearance(standard, self.recogniser.meaning, odds).astype(np.float32)
        apart = self.halves - seen @ self.centres.T
        each = self.count // GROUPINGS
        near = apart.reshape(len(seen), GROUPINGS, each).argmin(axis=2)
        return np.asarray(near + each * np.arange(GROUPINGS))

    def nearest_to(self, look: Look) -> list[int]:
        """Return the same of one prompt at which the recogniser has looked."""
        meaning, (_, standard, odds) = self.recogniser.meaning, look
        meant, shape = standard[:meaning], standard[meaning:]
        seen = np.concatenate(
            (shape, ODDS_REACH * odds, MEANING_REACH * meant), dtype=np.float32, casting="same_kind"
        )
        apart = self.centres.dot(seen)
        np.subtract(self.halves, apart, out=apart)
        each = self.count // GROUPINGS
        near: list[int] = apart.reshape(GROUPINGS, each).argmin(axis=1).tolist()
        return [row * each + at for row, at in enumerate(near)]

    def told(self, groups: Sequence[int]) -> str:
        """Return a prompt's groups as they are kept with its call: numbers, and of which key."""
        return f"{self.key}:{'.'.join(map(str, groups))}"

    def read(self, told: str) -> list[int] | None:
        """Return what `told` told; None where that was of another key, whose groups are others."""
        key, _, groups = told.partition(":")
        return list(map(int, groups.split("."))) if key == self.key else None


class _Evenly:
    """Draws for groups that are to be the same everywhere: multiples of the golden ratio."""

    def __init__(self) -> None:
        self._last = 0.0

    def random(self) -> float:
        """Return the next."""
        self._last = (self._last + _GOLDEN) % 1.0
        return self._last


def making(
    recogniser: Recogniser, vectors: Floats, labels: Numbers, key: str = ""
) -> Iterator[Groups | None]:
    """Group examples, the same each time; yield None after each of GROUPINGS steps but the last,
    then the groups. For whoever has more pressing work between the steps."""
    rows, draws = some(len(labels)), _Evenly()
    standard = recogniser.standardise(vectors)
    # An example is too surely of its own domain: who comes is placed by less certain odds.
    odds = among_held_out(recogniser, standard, labels, rows)
    seen = _appearance(standard[rows], recogniser.meaning, odds)
    count = min(max(len(seen) // EXAMPLES_PER_GROUP, 1), GROUPS_MAX)
    found: list[Floats] = []
    while len(found) < GROUPINGS - 1:
        found.append(group(seen, count, draws)[0])
        yield None
    found.append(group(seen, count, draws)[0])
    least = min(map(len, found))  # fewer than asked for where examples are all alike
    centres = np.vstack([each[:least] for each in found])
    halves = (centres**2).sum(axis=1) / 2.0
    yield Groups(recogniser, centres.astype(np.float32), halves.astype(np.float32), key)


def make_groups(recogniser: Recogniser, vectors: Floats, labels: Numbers, key: str = "") -> Groups:
    """Return what `making` comes to, at one go."""
    *_, made = making(recogniser, vectors, labels, key)
    assert made is not None, "the last step yields the groups"
    return made


def _appearance(standard: Floats, meaning: int, odds: Floats) -> Floats:
    """Return what prompts look like, a row for each: of vectors as standardised, of which the first
    `meaning` numbers are the meaning, and of the odds of domains."""
    meant, shape = standard[:, :meaning], standard[:, meaning:]
    return np.hstack((shape, ODDS_REACH * odds, MEANING_REACH * meant))

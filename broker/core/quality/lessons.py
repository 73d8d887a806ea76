"""What was learned of endpoints, as plain numbers that a decision mixes for the prompt at hand.

A prompt is a few cells and their shares: its domains by p(domain | prompt), and the groups that it
is of. Its expected score at every endpoint is the shares times the domains' rows, and what the
groups add: `q = q_dom + gain`, as `broker.core.quality.learning` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from broker.core.cascade import AS_USUAL, USUAL, Curve, Other
from broker.core.catalog import Endpoint
from broker.core.columns import Floats, Numbers, middle
from broker.core.quality.confidence import Curves
from broker.core.quality.domains import Look, Recogniser
from broker.core.quality.gains import NO_GAINS, Gains
from broker.core.quality.groups import GROUPINGS, Groups
from broker.core.quality.own_words import Own, add_own
from broker.core.requirements import Prompt, Requirements

DOMAINS_MIXED_MAX: Final = 4
TOKENS_OUT_USUAL: Final = 256
"""Of an answer, where nothing is known."""
CUTS_MAX: Final = 256
TABLE_SIZE_MAX: Final = 500
"""Of more endpoints there is no table of their own."""
BYTES_MAX: Final = 8_000_000
"""So much may all take that is remembered of cuts."""
_UNLIKELY: Final = 0.02
_OF_GROUPS: Final = (1.0 / GROUPINGS,) * GROUPINGS
_NEUTRAL: Final = 0.5
"""The domain fit of who claims nothing."""

Mix = tuple[tuple[int, ...], tuple[float, ...]]
"""Cells, and the share of each."""
NOTHING: Final[Mix] = ((), ())


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """What is known of some endpoints, for calls about one domain."""

    numbers: Numbers
    table: Floats
    """(cells, these endpoints), or (domains + 1, all endpoints) where these are very many."""
    gains: Gains | None
    """What groups add; None where that is in the table."""
    fit: Floats
    """The domain fit: what is claimed counts the less, the more is known."""
    tokens_out: Floats
    """Expected of an answer."""
    longest: float
    """The most of these."""
    usual: float
    """The middle one of these."""

    def quality(self, prompt: Prompt) -> Floats:
        """Return the expected score of each, within 0..1."""
        if self.gains is None:
            quality: Floats = np.array(prompt.shares).dot(self.table[np.array(prompt.cells)])
        else:
            quality = self._summed(prompt, self.gains)
            if quality.size != self.numbers.size:
                quality = quality[self.numbers]
        np.maximum(quality, 0.0, out=quality)
        np.minimum(quality, 1.0, out=quality)
        return quality

    def _summed(self, prompt: Prompt, gains: Gains) -> Floats:
        """Return the expected score of all endpoints, within no bounds yet."""
        cells, shares, row = prompt.cells, prompt.shares, len(self.table)
        groups = [cell - row for cell in cells if cell >= row]
        domains = len(cells) - len(groups)
        quality: Floats = np.array(shares[:domains]).dot(self.table[np.array(cells[:domains])])
        if groups:
            gains.add(groups, quality)
        return quality


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """All that was learned. Build with `broker.core.quality.learning.learn`."""

    places: Mapping[str, int]
    """The rows of the domains; the one after them is of prompts of none."""
    table: Floats
    """(domains + 1, endpoints): expected scores, as far as domains tell."""
    doubt: Floats
    """(domains + 1, endpoints): how far what is claimed is all that is known, 1 to 0."""
    weight: Floats
    """(domains + 1, endpoints): by how many answers the expected scores are known."""
    tokens_out: Floats
    """(domains + 1, endpoints): tokens of an answer; NaN where nobody knows."""
    recogniser: Recogniser | None = None
    """Tells the domains of prompts."""
    groups: Groups | None = None
    """Those that `gains` are of."""
    gains: Gains = NO_GAINS
    """What groups add to expected scores."""
    curves: Curves | None = None
    """How sure answers are read."""
    agreements: Mapping[Other, Curves] = field(default_factory=dict)
    """What agreement with another answer adds to that, by whose it is."""
    own: Own = field(default_factory=dict)
    """What accounts' words add on their own calls."""
    cuts: dict[tuple[int, int], Cut] = field(default_factory=dict, init=False)
    """Filled on first use."""
    tables: dict[int, tuple[Numbers, Floats]] = field(default_factory=dict, init=False)
    """Of cuts, which are the same for all domains; filled on first use."""

    def mix(self, vector: Floats, domain: str | None, look: Look | None = None) -> Mix:
        """Return what a prompt is made of. `domain` is what its caller named, if anything; `look`
        is what a recogniser has seen in it already, which may be another one."""
        recogniser, groups = self.recogniser, self.groups
        cells, shares = [self.places.get(domain or "", len(self.places))], [1.0]
        if recogniser is None:
            return tuple(cells), tuple(shares)
        if look is None or look.by is not recogniser:
            look = recogniser.look(vector)
        if domain is None:
            likely = look.odds.tolist()
            best = sorted(range(len(likely)), key=likely.__getitem__)[: -1 - DOMAINS_MIXED_MAX : -1]
            kept = [at for at in best if likely[at] > _UNLIKELY] or best[:1]
            cells = [self.places[recogniser.names[at]] for at in kept]
            shares = _hundredths([likely[at] for at in kept])
        if groups is None:
            return tuple(cells), tuple(shares)
        if groups.recogniser is not recogniser:
            look = groups.recogniser.look(vector)
        row = len(self.places) + 1
        cells += [row + at for at in groups.nearest_to(look)]
        return tuple(cells), (*shares, *_OF_GROUPS)

    def groups_of(self, mix: Mix) -> str | None:
        """Return the groups of a prompt as they are kept with its call; None where there are
        none."""
        row = len(self.places) + 1
        found = [cell - row for cell in mix[0] if cell >= row]
        return self.groups.told(found) if self.groups and found else None

    def cut(self, domain: str | None, numbers: Numbers, claimed: Floats) -> Cut:
        """Return what is known of these endpoints for calls about a domain; `claimed` is the domain
        fit by what they claim. It is remembered with the very array of numbers."""
        place = self.places.get(domain or "", len(self.places))
        known = self.cuts.get((id(numbers), place))
        if known is not None:
            return known
        cut = self._cut(place, numbers, claimed)
        self._make_room(cut.fit.nbytes + cut.tokens_out.nbytes)
        self.cuts[id(numbers), place] = cut
        return cut

    def quality(self, wanted: Requirements, prompt: Prompt, cut: Cut) -> Floats:
        """Return the expected score of each of a cut on a call, within 0..1."""
        quality, words = cut.quality(prompt), self.own.get(wanted.account_id)
        if words is not None:
            add_own(words, prompt, len(self.places), cut.numbers, quality)
        return quality

    def curve(self, number: int, domain: str | None) -> Curve:
        """Return how likely an endpoint's answers are to be good, by how sure it is of them."""
        if self.curves is None:
            return USUAL
        return self.curves.of(number, self.places.get(domain or "", len(self.places)))

    def agreement(self, number: int, domain: str | None, other: Other) -> Curve:
        """Return what it adds when another answer, of `other`, agrees with an endpoint's."""
        curves = self.agreements.get(other)
        if curves is None:
            return AS_USUAL
        return curves.of(number, self.places.get(domain or "", len(self.places)))

    def known(self, prompt: Prompt, numbers: Numbers) -> Floats:
        """Return by how many answers the score of each of these endpoints is known."""
        domains = [at for at, cell in enumerate(prompt.cells) if cell < len(self.weight)]
        cells, shares = np.array(prompt.cells)[domains], np.array(prompt.shares)[domains]
        return np.asarray(shares.dot(self.weight[cells[:, None], numbers]))

    def with_newcomers(self, newcomers: Sequence[Endpoint]) -> Lessons:
        """Return the same for a changed catalog: of its newcomers what they declare is known."""
        numbers = [each.number for each in newcomers]
        size = max([self.table.shape[1], *(number + 1 for number in numbers)])
        table, doubt, weight, tokens_out = (
            _filled(of_each, size, numbers, value)
            for of_each, value in (
                (self.table, 0.0),
                (self.doubt, 1.0),
                (self.weight, 0.0),
                (self.tokens_out, np.nan),
            )
        )
        for each in newcomers:
            table[:, each.number] = each.quality
            for name, quality in each.domains.items():
                if name in self.places:
                    table[self.places[name], each.number] = quality
        return replace(self, table=table, doubt=doubt, weight=weight, tokens_out=tokens_out)

    def forget_cuts(self) -> None:
        """Forget what is remembered of some endpoints, as where nobody has these numbers now."""
        self.cuts.clear()
        self.tables.clear()

    def _cut(self, place: int, numbers: Numbers, claimed: Floats) -> Cut:
        tokens_out = self.tokens_out[place, numbers]
        tokens_out = np.where(np.isnan(tokens_out), float(TOKENS_OUT_USUAL), tokens_out)
        return Cut(
            numbers,
            *self._known_of(numbers),
            _NEUTRAL + (claimed - _NEUTRAL) * self.doubt[place, numbers],
            tokens_out,
            float(tokens_out.max(initial=0.0)),
            middle(tokens_out),
        )

    def _known_of(self, numbers: Numbers) -> tuple[Floats, Gains | None]:
        """Return the table of a cut, and what groups add where that is not in it."""
        if numbers.size > TABLE_SIZE_MAX:
            return self.table, self.gains
        known = self.tables.get(id(numbers))
        if known is None:
            row = len(self.table)
            table = np.empty((row + len(self.gains.for_all), numbers.size))
            self.table.take(numbers, axis=1, out=table[:row])
            self.gains.write(numbers, table[row:])
            self._make_room(table.nbytes)
            known = self.tables[id(numbers)] = numbers, table
        return known[1], None

    def _make_room(self, more: int) -> None:
        """Forget all that is remembered where one more cut, or so many more bytes, are too much."""
        held = sum([each.nbytes for _, each in self.tables.values()])
        held += sum([each.fit.nbytes + each.tokens_out.nbytes for each in self.cuts.values()])
        if len(self.cuts) >= CUTS_MAX or held + more > BYTES_MAX:
            self.forget_cuts()


def _hundredths(likely: list[float]) -> list[float]:
    """Return shares of one, the likeliest first. They are coarse, for scores are made of them and
    kept, and are to tell little of the prompt."""
    total = sum(likely)
    others = [round(each / total, 2) for each in likely[1:]]
    return [round(1.0 - sum(others), 2), *others]


def _filled(of_each: Floats, size: int, numbers: list[int], value: float) -> Floats:
    """Return a copy of `size` columns, with a value in those of these numbers."""
    filled = np.full((len(of_each), size), value)
    filled[:, : of_each.shape[1]] = of_each
    filled[:, numbers] = value
    return filled

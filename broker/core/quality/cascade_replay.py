"""Replays cascades over known answers: a first model answers, and one more where that pays.

For each ordered pair of models two logistic curves are learned: P(first good) and P(second good),
given how sure the first was and what the router expects of either for the prompt. At a price of
money, the second is asked where its expected gain is above its cost; where to begin is chosen by
what each beginning is expected to bring, answers of the second included. Who is always equally
sure says nothing by it: that answer is kept, for whoever would ask again knows so beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from broker.core.cascade import sureness
from broker.core.columns import Bools, Floats, Numbers
from broker.core.quality.fitting import calibration_error, fit_ridge_logistic
from broker.core.quality.frontier import Replay

FOLDS = 5
SURENESS_MIN = 1e-6
"""Whose sureness is spread by less is always equally sure."""
LIKE_OTHERS = 20.0
"""What a domain's gain from escalating weighs against that of all."""


Chances = dict[tuple[int, int], tuple[Floats, Floats]]
"""By pair: P(first good) and P(second good), by prompt."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Prompts of which each model's answer is known: (prompts, models) but for `domains`."""

    expected: Floats
    """Scores as the router expects them."""
    costs_usd: Floats
    """As they are expected."""
    scores: Floats
    confidences: Floats
    """Within 0..1."""
    paid_usd: Floats
    latency_ms: Floats
    domains: Numbers
    """Places of domains."""

    def rows(self, wanted: Bools) -> Asked:
        """Return some of the prompts."""
        return Asked(**{name: getattr(self, name)[wanted] for name in self.__slots__})


@dataclass(frozen=True, slots=True, eq=False)
class CascadeReplay(Replay):
    """What cascades got and cost, by price and call, beside each model alone."""

    begun: Numbers
    """(prices, calls): who answered first; `choices` is whose answer was kept."""


class Calibration(msgspec.Struct, frozen=True):
    """How well a model's confidence says whether it is right."""

    model: str
    ece: float
    ece_raw: float
    """Of its confidence as told."""


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """What was learned of a pair: of the first, and of the second when the first has answered."""

    own: Floats
    following: Floats

    def chances(self, asked: Asked, first: int, second: int) -> tuple[Floats, Floats]:
        """Return P(first good) and P(second good), by prompt."""
        design = _design(asked, first, second)
        return _logistic(design @ self.own), _logistic(design @ self.following)


class Cascader:
    """Cascades of two, learned from some prompts."""

    def __init__(self, seen: Asked) -> None:
        count = seen.scores.shape[1]
        pairs = [(a, b) for a in range(count) for b in range(count) if a != b]
        self._seen = seen
        self._curves = {pair: _fit(seen, *pair) for pair in pairs}
        spread = np.ptp(sureness(seen.confidences), axis=0)
        self._telling = [pair for pair in pairs if spread[pair[0]] > SURENESS_MIN]
        """Pairs of which the first may be doubted."""
        self._held_out = _held_out(seen, self._telling)

    def play(
        self, asked: Asked, prices: Sequence[float], singles: tuple[int, int]
    ) -> CascadeReplay:
        """Play at several prices of money, score per dollar; `singles` are best and cheapest."""
        rows = np.arange(len(asked.scores))
        chances = {pair: self._curves[pair].chances(asked, *pair) for pair in self._telling}
        begun, chosen, got, paid = [], [], [], []
        for price in prices:
            first = self._beginnings(asked, price)
            second = _seconds(asked.costs_usd, chances, first, price)
            both = second >= 0
            last = np.where(both, second, first)
            begun.append(first)
            chosen.append(last)
            got.append(asked.scores[rows, last])
            paid.append(
                asked.paid_usd[rows, first] + np.where(both, asked.paid_usd[rows, last], 0.0)
            )
        whole = (np.array(chosen), asked.scores, asked.paid_usd, *singles)
        return CascadeReplay(*whole, np.array(got), np.array(paid), np.array(begun))

    def calibrations(
        self, asked: Asked, models: Sequence[str], places: Sequence[int]
    ) -> list[Calibration]:
        """Return how well the confidence of models at these places is calibrated, as learned and as
        told."""
        told = []
        for place in places:
            other = next(each for each in range(len(models)) if each != place)
            own, _ = self._curves[place, other].chances(asked, place, other)
            right = asked.scores[:, place]
            raw = calibration_error(asked.confidences[:, place], right)
            told.append(Calibration(models[place], calibration_error(own, right), raw))
        return told

    def _beginnings(self, asked: Asked, price: float) -> Numbers:
        """Return where to begin each prompt."""
        worth = asked.expected - price * asked.costs_usd
        count = asked.scores.shape[1]
        hope = [self.hope(asked.domains, first, price) for first in range(count)]
        return np.asarray((worth + np.column_stack(hope)).argmax(axis=1))

    def hope(self, domains: Numbers, first: int, price: float) -> Floats:
        """Return what asking again after `first` brings, by prompt: what it brought to the prompts
        learned from, each judged by what was learned of others."""
        seen = self._seen
        begun = np.full(len(seen.scores), first)
        second = _seconds(seen.costs_usd, self._held_out, begun, price)
        rows, both = np.arange(len(begun)), second >= 0
        gain = seen.scores[rows, second] - seen.scores[:, first]
        gain = np.where(both, gain - price * seen.costs_usd[rows, second], 0.0)
        usual = float(gain.mean())
        length = int(max(seen.domains.max(), domains.max())) + 1
        total = np.bincount(seen.domains, gain, minlength=length)
        times = np.bincount(seen.domains, minlength=length)
        by_domain = (total + LIKE_OTHERS * usual) / (times + LIKE_OTHERS)
        return np.asarray(np.maximum(by_domain[domains], 0.0))


def _held_out(seen: Asked, pairs: Sequence[tuple[int, int]]) -> Chances:
    """Return the chances of each pair for the prompts learned from, by what others teach."""
    folds = np.arange(len(seen.scores)) % FOLDS
    found: Chances = {pair: (np.zeros(folds.size), np.zeros(folds.size)) for pair in pairs}
    for fold in range(FOLDS):
        out = folds == fold
        others, own = seen.rows(~out), seen.rows(out)
        for pair in pairs:
            for place, chances in enumerate(_fit(others, *pair).chances(own, *pair)):
                found[pair][place][out] = chances
    return found


def _seconds(costs_usd: Floats, chances: Chances, first: Numbers, price: float) -> Numbers:
    """Return whom to ask next, -1 where the first answer is kept."""
    second, best = np.full(len(first), -1), np.zeros(len(first))
    for (a, b), (own, following) in chances.items():
        gain = following - own - price * costs_usd[:, b]
        better = (first == a) & (gain > best)
        second[better], best[better] = b, gain[better]
    return second


def _fit(seen: Asked, first: int, second: int) -> Curves:
    design = _design(seen, first, second)
    return Curves(
        fit_ridge_logistic(design, seen.scores[:, first]),
        fit_ridge_logistic(design, seen.scores[:, second]),
    )


def _design(asked: Asked, first: int, second: int) -> Floats:
    sure = sureness(asked.confidences[:, first])
    odds = _odds(asked.expected)
    return np.column_stack((np.ones(len(sure)), sure, odds[:, first], odds[:, second]))


def _odds(chances: Floats) -> Floats:
    inside = np.clip(chances, 0.01, 0.99)
    return np.asarray(np.log(inside / (1.0 - inside)))


def _logistic(odds: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(odds, -30.0, 30.0))))

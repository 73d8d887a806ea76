"""Of very many eligible endpoints, the few that can come first: only they need be weighed.

Whoever is not among them scores no more than a bound, which holds until the market changes, for
whoever takes a call, ends one, or is limited from then on is weighed as well. What remains changes
by the call alone, its tokens in: between two numbers of them the ratio of two costs, each linear in
it, is greatest at one of the two (it is a Moebius function). So what is chosen is what weighing all
would choose; where that is not certain, all are weighed.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import numpy as np

from broker.core.candidates.eligibility import full
from broker.core.candidates.scoring import (
    NEAR_BEST,
    PARTS,
    UNNOTICED_MS,
    normal,
    score_latency,
    score_parts,
)
from broker.core.candidates.servers import plan_length
from broker.core.candidates.view import TOKENS_OUT_EXPECTED, RoutingLimits, View, output_limit
from broker.core.columns import Bools, Floats, Numbers, as_index
from broker.core.health.pulse import Pulse
from broker.core.market import Market, Shortlist
from broker.core.requirements import Requirements

FRONT_FROM: Final = 1_000
"""Fewer are weighed as soon as a part of them is found."""
WEIGHED_MIN: Final = 68
"""With the extremes mostly no more than a story tells of: none has to be left out of it then."""
WEIGHED_SHARE_MAX: Final = 0.25
"""Where more than so many are near the best, all are weighed."""
SLACK: Final = 0.03
"""So far below what is near the best now, an endpoint may yet come to be near it."""
EXTREMES: Final = 16
"""The cheapest and the soonest are weighed: what all parts are relative to is among them."""
AGAIN_AFTER: Final = 16
"""Calls until another front is built, where one was of no use. It takes as long as two decisions,
and is for those who come again."""
USED_MIN: Final = 4
"""A front has been of use that spared so many calls weighing all: another follows at once."""
FRONTS_MAX: Final = 256
"""Of a market, for callers may ask for as many kinds as they like."""
STEPS_TO_DOUBLE: Final = 2
"""Calls have one front whose tokens in differ by a factor of 2 ** (1 / 2) at most."""
_ROUNDING: Final = 1e-9


class _Bound(NamedTuple):
    """What nobody beyond the front can score more than."""

    score: float
    """Relative to the cheapest and the soonest of when it was worked out."""
    tokens_in: tuple[int, int]
    cheapest: tuple[float, float]
    """What the one costs that was the cheapest, at the fewest and the most tokens in."""
    rest_costs: tuple[float, float]
    """What the others cost at the least, at the two."""
    soonest: float
    rest_soonest: float

    def at(self, tokens_in: int, cheapest: float, soonest: float) -> float:
        """Return the bound on a call of so many tokens in, where so much is the cheapest and so
        long the soonest of those that are weighed; infinite where one beyond them may be either."""
        low, high = self.tokens_in
        share = (tokens_in - low) / (high - low)
        least = self.rest_costs[0] + share * (self.rest_costs[1] - self.rest_costs[0])
        if cheapest > least or soonest > self.rest_soonest:
            return math.inf
        standard = self.cheapest[0] + share * (self.cheapest[1] - self.cheapest[0])
        later = max(soonest, UNNOTICED_MS) / max(self.soonest, UNNOTICED_MS)
        return self.score * max(1.0, cheapest / standard, later) * (1.0 + _ROUNDING)


@dataclass(slots=True, eq=False)
class Front:
    """Those that can come first on one shortlist, of calls of one kind. `cut` is that shortlist
    with them alone, to be weighed as any."""

    cut: Shortlist
    _key: Hashable
    _bound: _Bound
    _weighed: Bools
    """By place on the whole shortlist."""
    _done: Bools
    """By deployment number: whose endpoints are all weighed."""
    _read: tuple[int, int, int]
    """The era of the pulse's journal, and as far as its two parts have been read."""
    _servers: set[int] = field(default_factory=set)
    _endpoints: set[int] = field(default_factory=set)
    """Whom it has been told of already."""
    _used: int = 0
    """Calls that were decided by it."""

    def follow(self, wanted: Requirements, listed: Shortlist, pulse: Pulse) -> bool:
        """Add whoever has changed or come in doubt, and where the conversation's context is. False:
        all are to be weighed."""
        journal, (era, moved, turned) = pulse.journal, self._read
        if era != journal.era:
            return False
        servers = {*journal.moved[moved:]} - self._servers
        endpoints = {*journal.turned[turned:]} - self._endpoints
        if wanted.home is not None and wanted.home not in self._endpoints:
            endpoints.add(wanted.home)
        self._read = (era, len(journal.moved), len(journal.turned))
        if servers or endpoints:
            self._servers |= servers
            self._endpoints |= endpoints
            # Nearly all calls go to those that are weighed already.
            done = self._done
            strange = [each for each in servers if each < done.size and not done.item(each)]
            if strange or endpoints:
                self._add(listed, strange, endpoints)
        size, doubts = self.cut.numbers.size, pulse.doubts
        if size > WEIGHED_SHARE_MAX * self._weighed.size:
            return False
        # Somebody must be left who is not in doubt, or none would be ejected among so few. Of those
        # who are, many may be of other lists.
        return doubts.count < size or not all(map(doubts.has, self.cut.numbers.tolist()))

    def holds(self, wanted: Requirements, view: View, scores: Floats, places: int) -> bool:
        """Say whether nobody else is near the best, or among the first `places`; `view` and
        `scores` are of those of the front that are eligible."""
        if scores.size < places:
            return False
        best, cost, latency = scores.item(scores.argmax()), view.cost_picos, view.latency_ms
        cheapest, soonest = cost.item(cost.argmin()), latency.item(latency.argmin())
        most = self._bound.at(wanted.tokens_in_expected, cheapest, soonest)
        # Counted, not sorted: that takes a third of the time.
        near = best > 0.0 and most < best * (1 - NEAR_BEST)
        better, servers = (scores > most).nonzero()[0], view.servers
        length = better.size if servers is None else plan_length(servers[better], places)
        held = near and length >= places
        self._used += held
        return held

    def drop(self, market: Market) -> None:
        """Be told that it is of no use any more."""
        market.fronts[self._key] = 0 if self._used >= USED_MIN else AGAIN_AFTER

    def _add(self, whole: Shortlist, servers: list[int], endpoints: Iterable[int]) -> None:
        weighed, more = self._weighed, bool(servers)
        if servers:
            among = np.zeros(self._done.size, dtype=np.bool_)
            among[servers] = self._done[servers] = True
            weighed |= among[whole.deployments]
        for endpoint in endpoints:
            place = int(whole.numbers.searchsorted(endpoint))  # a shortlist is by number
            if place < weighed.size and whole.numbers[place] == endpoint and not weighed[place]:
                weighed[place] = more = True
        if more:
            self.cut = _cut(whole, weighed.nonzero()[0])


def front(
    wanted: Requirements, market: Market, listed: Shortlist, pulse: Pulse, limits: RoutingLimits
) -> Front | None:
    """Return the front for a call that goes by declared qualities and weights; None where all are
    to be weighed."""
    limit = _limit(wanted, listed, limits)
    if limit is None:
        return None
    step = math.floor(STEPS_TO_DOUBLE * math.log2(wanted.tokens_in_expected))
    kind = wanted.weights, wanted.choices, min(limit, TOKENS_OUT_EXPECTED), step
    fronts, key = market.fronts, (listed, *kind)
    known = fronts.get(key, 1)
    if isinstance(known, Front):
        if known.follow(wanted, listed, pulse):
            return known
        known.drop(market)
        known = fronts[key]
    if known:
        if len(fronts) >= FRONTS_MAX:
            fronts.clear()
        fronts[key] = known - 1
        return None
    made = _build(wanted, listed, pulse, limits, (key, step))
    if made is None or not made.follow(wanted, listed, pulse):
        fronts[key] = AGAIN_AFTER
        return None
    fronts[key] = made
    return made


def _limit(wanted: Requirements, listed: Shortlist, limits: RoutingLimits) -> int | None:
    """Return the output limit where all have the same and nothing is asked that would have to be
    asked of each; else None."""
    if (
        listed.numbers.size < FRONT_FROM
        or wanted.value_nanos is not None
        or wanted.max_cost_nanos is not None
        or wanted.latency_ms_max is not None
        or wanted.providers_order
        or wanted.tokens_in_expected < 1
        or listed.context_tokens_min < wanted.tokens_in_context + (wanted.tokens_out_max or 0)
        or listed.output_tokens_min < (wanted.tokens_out_max or 0)
    ):
        return None
    limit = output_limit(wanted, listed, limits)
    return limit if isinstance(limit, int) else None


def _build(
    wanted: Requirements,
    listed: Shortlist,
    pulse: Pulse,
    limits: RoutingLimits,
    kind: tuple[Hashable, int],
) -> Front | None:
    """Weigh all for the sake of the calls to come; None where too many are near the best, or
    something is for nothing. `kind` is (key, step)."""
    key, step = kind
    view = View.of(wanted, listed, pulse, limits)
    weighed = full(wanted.tier, view, limits, pulse)
    low, high = (2.0 ** (each / STEPS_TO_DOUBLE) for each in (step, step + 1))
    tokens_in = math.floor(low), math.ceil(high)
    more = [float(each - wanted.tokens_in_expected) for each in tokens_in]
    costs = [view.cost_picos + each * listed.rate_in for each in more]
    if weighed.all() or costs[0].min() <= 0.0:
        return None
    # Nobody's parts are relative to what one that is full costs, or how soon that is.
    for each in (*costs, view.cost_picos, view.latency_ms):
        each[weighed] = np.inf
    parts = np.empty((len(PARTS), listed.numbers.size))
    score_parts(view, parts)
    weights = normal(wanted.weights)
    best = float(weights.dot(parts)[~weighed].max())
    one = int(costs[0].argmin())
    np.minimum(np.maximum(*(each[one] / each for each in costs)), 1.0, out=parts[2])
    soonest = float(view.latency_ms.min())
    score_latency(soonest, view.latency_ms, parts[3])
    most = weights.dot(parts)
    most[weighed] = 0.0
    weighed |= most >= best * (1 - NEAR_BEST) * (1 - SLACK)
    weighed[np.argpartition(-most, WEIGHED_MIN)[:WEIGHED_MIN]] = True
    for each in (*costs, view.latency_ms):
        weighed[np.argpartition(each, EXTREMES)[:EXTREMES]] = True
    weighed |= np.isin(listed.numbers, [*pulse.doubts.all()])
    rest = ~weighed
    if np.count_nonzero(weighed) > WEIGHED_SHARE_MAX * weighed.size:
        return None
    bound = _Bound(
        float(most[rest].max()),
        tokens_in,
        (float(costs[0][one]), float(costs[1][one])),
        (float(costs[0][rest].min()), float(costs[1][rest].min())),
        soonest,
        float(view.latency_ms[rest].min()),
    )
    read = pulse.journal.era, len(pulse.journal.moved), len(pulse.journal.turned)
    done = np.bincount(listed.deployments[rest], minlength=1 + int(listed.deployments.max())) == 0
    return Front(_cut(listed, weighed.nonzero()[0]), key, bound, weighed, done, read)


def _cut(listed: Shortlist, places: Numbers) -> Shortlist:
    """Return the shortlist of those at these places; what is said of all stays as it was."""
    numbers, deployments = listed.numbers[places], listed.deployments[places]
    return replace(
        listed,
        numbers=numbers,
        deployments=deployments,
        at=as_index(numbers),
        deployments_at=as_index(deployments),
        servers=None if listed.servers is None else listed.servers[places],
        rate_in=listed.rate_in[places],
        rate_out=listed.rate_out[places],
        rate_call=None if listed.rate_call is None else listed.rate_call[places],
        capacity=listed.capacity[places],
        context_tokens=listed.context_tokens[places],
        output_tokens=listed.output_tokens[places],
        quality=listed.quality[places],
        domain_fit=listed.domain_fit[places],
    )

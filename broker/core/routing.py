"""Decides where a call goes: eligible, then scored, then ranked; a function of values.

The first place is drawn at random among those within NEAR_BEST of the best score, weighted by free
capacity, so that one cheap endpoint is not stampeded (Mitzenmacher, "The Power of Two Choices in
Randomized Load Balancing", 2001). Where a good answer has a worth, they are about as good and as
cheap as the best, too.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import msgspec
import numpy as np

from broker.core.candidates.eligibility import is_taught, reject, shortlist
from broker.core.candidates.scoring import (
    AS_CHEAP,
    AS_GOOD,
    NEAR_BEST,
    PARTS,
    normal,
    score_parts,
    typical_picos,
    weigh,
    worth,
)
from broker.core.candidates.servers import parted, taken
from broker.core.candidates.view import RoutingLimits, View
from broker.core.columns import Floats, Numbers
from broker.core.decision import Candidate, Decision, nobody
from broker.core.health.pulse import Pulse
from broker.core.market import Market, Shortlist
from broker.core.quality.exploring import draw, good_enough, propensities, spread_of
from broker.core.quality.lessons import Lessons
from broker.core.ranking.few import decide_among_few
from broker.core.ranking.front import front
from broker.core.ranking.lone import decide_alone
from broker.core.requirements import TASTES, Requirements
from pricing.money import PICOS_PER_NANO, charge_nanos

_SURELY_FIRST = 10.0
STAY_WITHIN = 0.15
"""A conversation stays where its context is while that scores at most so much below the best: there
the prompt so far is cached, and answered from sooner."""


class _Weighed(NamedTuple):
    """All that are eligible of a shortlist, with their figures."""

    view: View
    figures: Floats
    """As in `Decision`; the last row is to be filled in."""
    value_picos: float | None
    rejected: Numbers
    reasons: Numbers


def route(
    wanted: Requirements,
    market: Market,
    pulse: Pulse,
    limits: RoutingLimits,
    chance: tuple[Random, float],
    *,
    whole: bool = True,
) -> Decision | None:
    """Decide. `chance` is (random source, now in seconds). None: no endpoint has that name here.

    The choice is the same if the decision need not be `whole`: then nothing may be told of those
    eligible of whom it is certain that they are not near the best.
    """
    random, now_s = chance
    listed = shortlist(wanted, market)
    if listed is None:
        return None
    # Without arrays, where there is one endpoint or a few; None where that cannot be.
    plain = None
    if listed.lone is not None:
        plain = decide_alone(wanted, market, listed, pulse, limits)
    elif listed.few is not None:
        plain = decide_among_few(wanted, market, listed, pulse, limits, random)
    if plain is not None:
        return plain
    lessons = market.lessons if is_taught(wanted, market) else None
    # One that holds no more is followed by another, if it has been of use.
    while not whole and lessons is None:
        known = front(wanted, market, listed, pulse, limits)
        if known is None:
            break
        weighed = _weigh(wanted, known.cut, None, limits, (pulse, now_s))
        if known.holds(wanted, weighed.view, weighed.figures[0], limits.attempts_max):
            decision = _decide(wanted, market, weighed, limits, random, None)
            left_out = listed.numbers.size - known.cut.numbers.size
            return msgspec.structs.replace(decision, left_out=left_out)
        known.drop(market)
    weighed = _weigh(wanted, listed, lessons, limits, (pulse, now_s))
    if not weighed.view.numbers.size:
        return nobody(weighed.rejected, weighed.reasons, market.book.version)
    return _decide(wanted, market, weighed, limits, random, lessons)


def _weigh(
    wanted: Requirements,
    listed: Shortlist,
    lessons: Lessons | None,
    limits: RoutingLimits,
    moment: tuple[Pulse, float],
) -> _Weighed:
    """Find who is eligible now, and what each is worth to the call. `moment` is (pulse, now in
    seconds)."""
    view = View.of(wanted, listed, moment[0], limits, lessons)
    rejected, reasons = listed.rejected, listed.reasons
    struck = reject(wanted, listed, view, limits, moment)
    if struck is not None:
        refused = struck.nonzero()[0]
        # Those that came nearest to being eligible are told first.
        rejected = np.concatenate((view.numbers[refused], rejected))
        reasons = np.concatenate((struck[refused], reasons))
        view = view.only((struck == 0).nonzero()[0])
    figures = np.empty((len(PARTS) + 3, view.numbers.size))
    value_picos = None
    if view.numbers.size:
        value_picos = _score(wanted, listed, view, figures, learned=lessons is not None)
    return _Weighed(view, figures, value_picos, rejected, reasons)


def _decide(
    wanted: Requirements,
    market: Market,
    weighed: _Weighed,
    limits: RoutingLimits,
    random: Random,
    lessons: Lessons | None,
) -> Decision:
    view, figures, value_picos, rejected, reasons = weighed
    scores, chances = figures[0], figures[-1]
    bound = wanted.providers_order or wanted.home is not None or scores.size < 2
    if wanted.explore and lessons is not None and not bound:
        share = normal(wanted.weights)[0] if value_picos is None else 1.0
        scores = _explore(wanted, lessons, view, (figures, share), random)
    else:
        chances.fill(0.0)
    judged = scores, chances, value_picos is not None
    places = _choose(wanted, market, view, judged, limits, random)
    return Decision(
        _plan(wanted, market, view, places),
        view.numbers,
        figures,
        rejected,
        reasons,
        market.book.version,
        None if value_picos is None else value_picos / PICOS_PER_NANO,
    )


def _score(
    wanted: Requirements, listed: Shortlist, view: View, figures: Floats, *, learned: bool
) -> float | None:
    """Fill in scores, parts and costs; return what a good answer is worth in pico-dollars, None
    where weights counted."""
    parts = figures[1:-2]
    score_parts(view, parts)
    figures[-2] = view.cost_picos
    if wanted.value_nanos is not None:
        value_picos = float(wanted.value_nanos * PICOS_PER_NANO)
        worth(view, figures, value_picos, None)
        return value_picos
    if not learned or wanted.preset is None:
        weigh(wanted.weights, parts, figures[0])
        return None
    taste = TASTES[wanted.preset]
    value_picos = max(taste.worth * typical_picos(wanted, listed, view.usual_out), 1.0)
    worth(view, figures, value_picos, taste)
    return value_picos


def _explore(
    wanted: Requirements,
    lessons: Lessons,
    view: View,
    judged: tuple[Floats, float],
    random: Random,
) -> Floats:
    """Draw who is to be first; fill in each one's chance of that, and return scores by which the
    drawn comes first. `judged` is (figures, how much quality counts in a score)."""
    figures, share = judged
    assert wanted.prompt is not None
    spread = spread_of(view.quality, lessons.known(wanted.prompt, view.numbers))
    able = good_enough(view.quality, wanted.quality_min)
    figures[-1] = propensities(figures[0], share * spread, able, random)
    scores: Floats = figures[0].copy()
    scores[draw(figures[-1], random)] = _SURELY_FIRST
    return scores


def _choose(
    wanted: Requirements,
    market: Market,
    view: View,
    judged: tuple[Floats, Floats, bool],
    limits: RoutingLimits,
    random: Random,
) -> list[int]:
    """Return the places of the best, in the order in which they are to be tried. `judged` is
    (scores, chances to be first, whether scores are of worth); the chances are filled in where the
    first is drawn by lot."""
    scores, chances, of_worth = judged
    length = min(limits.attempts_max, scores.size)
    left, servers = scores.copy(), view.servers
    if wanted.providers_order:
        # A score lies within -2..1, so a place in the caller's order weighs more than any score.
        left -= 4 * wishes(wanted, market, view.numbers)
        servers = None
        places = [int(left.argmax())]
    else:
        best = scores.item(scores.argmax())
        home = None if wanted.home is None else _home(wanted.home, view, scores, best)
        near = home
        if near is None:
            near = _alike(view, scores) if of_worth else _near(scores, best)
        if near.size == 1 and not chances.any() and home is None:
            chances[near] = 1.0
        places = [int(near[0]) if near.size == 1 else _draw(view, near, chances, random)]
    while len(places) < length:
        left[places[-1]] = -np.inf
        place = int(left.argmax())
        if servers is not None:
            others = np.where(taken(places, servers), -np.inf, left)
            best = int(others.argmax())
            place = place if others.item(best) == -np.inf else best
        places.append(place)
    return places


def _home(number: int, view: View, scores: Floats, best: float) -> Numbers | None:
    """Return the place where a conversation's context is, None where it is best left."""
    place = (view.numbers == number).nonzero()[0]
    stays = place.size == 1 and scores.item(place[0]) >= best - STAY_WITHIN * abs(best)
    return place if stays else None


def _near(scores: Floats, best: float) -> Numbers:
    """Return the places of those near the best: no weighted mean is below zero."""
    near: Numbers = (scores >= best * (1 - NEAR_BEST)).nonzero()[0]
    return near


def _alike(view: View, scores: Floats) -> Numbers:
    """Return the places of those that are worth about as much as the best, and about as good and
    as cheap."""
    best = int(scores.argmax())
    near: Numbers = (scores >= scores.item(best) - NEAR_BEST).nonzero()[0]
    if near.size > 1:
        alike = view.quality[near] >= view.quality.item(best) - AS_GOOD
        alike &= view.cost_picos[near] <= view.cost_picos.item(best) * AS_CHEAP
        near = near[alike]
    return near


def wishes(wanted: Requirements, market: Market, numbers: Numbers) -> Numbers:
    """Return each endpoint's place in the caller's order of providers; the last if not named."""
    provider = market.columns.provider
    place_of = np.full(len(provider.code_of), len(wanted.providers_order))
    for place, name in enumerate(wanted.providers_order):
        if name in provider.code_of:
            place_of[provider.code_of[name]] = place
    return np.asarray(place_of[provider.codes[numbers]])


def _draw(view: View, near: Numbers, chances: Floats, random: Random) -> int:
    """Draw one of those near the best, each weighted by its free capacity, never quite zero; fill
    in these chances."""
    free = np.maximum(1.0 - view.load[near], 0.01)
    free *= view.capacity[near]
    if view.servers is not None:
        free = parted(free, view.servers[near])
    # As random.choices does it, without what it does for other cases.
    sums = free.cumsum()
    free /= sums.item(-1)
    chances[near] = free
    at = sums.searchsorted(random.random() * sums.item(-1), "right")
    return near.item(min(int(at), near.size - 1))


def _plan(
    wanted: Requirements, market: Market, view: View, places: list[int]
) -> tuple[Candidate, ...]:
    plan = []
    limits = view.tokens_out
    for place in places:
        number = view.numbers.item(place)
        limit = limits if isinstance(limits, int) else limits.item(place)
        rate = market.rate(number, wanted.tier)
        picos = rate.picos(wanted.tokens_in_bound, wanted.choices * limit)
        plan.append(Candidate(number, rate, limit, charge_nanos(picos)))
    return tuple(plan)

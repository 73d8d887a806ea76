"""The decision among a few endpoints: what `route` does, in plain numbers.

A sum of two arrays takes as long as twenty sums of plain numbers, and a decision is made of sixty.
What is rarely asked for, and what breakers have a say in, is left to arrays. What depends on the
terms alone is remembered with the shortlist. A test holds both to the same decision.
"""

from __future__ import annotations

from bisect import bisect
from itertools import accumulate
from random import Random

from broker.core.candidates.eligibility import Rejection
from broker.core.candidates.scoring import NEAR_BEST, UNNOTICED_MS, normal
from broker.core.candidates.servers import parted_among_few, spread
from broker.core.candidates.view import TOKENS_OUT_EXPECTED, RoutingLimits
from broker.core.decision import Candidate, Decision, nobody
from broker.core.handful import REMEMBERED_MAX, Handful, Rates, Row, Workings
from broker.core.health.pulse import Pulse
from broker.core.market import Market, Shortlist
from broker.core.requirements import Requirements, Weights
from pricing.money import PICOS_PER_NANO, charge_nanos

_COST, _FULL = int(Rejection.COST_TOO_HIGH), int(Rejection.FULL)


def decide_among_few(
    wanted: Requirements,
    market: Market,
    listed: Shortlist,
    pulse: Pulse,
    limits: RoutingLimits,
    random: Random,
) -> Decision | None:
    """Return the decision; None where something is asked for that is for `route` to tell."""
    few, tokens_out = listed.few, output_limit(wanted, listed, limits)
    if few is None or tokens_out is None or _is_special(wanted, market):
        return None
    if pulse.is_wary_of(few.numbered):
        return None
    version = market.book.version
    if _is_too_dear(wanted, few.cheapest, tokens_out):
        few = few.without((_COST,) * len(few.places))
        return nobody(few.rejected, few.reasons, version)
    few.standing.follow(pulse)
    struck = _strike(wanted, few, tokens_out, limits)
    if struck is not None:
        few = few.without(struck)
        if not few.places:
            return nobody(few.rejected, few.reasons, version)
    made, ranked = _work_out(wanted, few, tokens_out)
    near = made.near
    first = near[0] if len(near) == 1 else near[_draw(made.free, random)]
    if first != ranked[0]:
        ranked.remove(first)
        ranked.insert(0, first)
    most = limits.attempts_max
    order = ranked[:most] if few.servers is None else spread(ranked, few.servers, most)
    plan = _plan(wanted, few, order, tokens_out)
    return Decision(plan, few.numbers, made, few.rejected, few.reasons, version)


def _is_special(wanted: Requirements, market: Market) -> bool:
    return (
        wanted.value_nanos is not None
        or wanted.latency_ms_max is not None
        or wanted.home is not None
        or bool(wanted.providers_order)
        or (market.lessons is not None and wanted.prompt is not None)
    )


def output_limit(wanted: Requirements, listed: Shortlist, limits: RoutingLimits) -> int | None:
    """Return the output limit; None where it may differ from endpoint to endpoint, or be more
    than one of them can do."""
    expected, most = wanted.tokens_in_context, wanted.tokens_out_max
    if most is not None:
        fits = listed.output_tokens_min >= most and listed.context_tokens_min >= expected + most
    else:
        most, prompt = limits.tokens_out_default, min(wanted.tokens_in_bound, 2 * expected + 64)
        fits = listed.context_tokens_min >= expected and (
            not wanted.task.generates
            or min(listed.output_tokens_min, listed.context_tokens_min - prompt) >= most
        )
    if not fits:
        return None
    return most if wanted.task.generates else 0


def _is_too_dear(wanted: Requirements, rates: Rates, tokens_out: int) -> bool:
    """True where a call that can cost so much at these rates costs more than it may."""
    most = wanted.max_cost_nanos
    if most is None:
        return False
    rate_in, rate_out, rate_call = rates
    # In the order of `view.ceiling_picos`: then rounding, too, keeps dearer rates dearer.
    ceiling = rate_in * float(wanted.tokens_in_bound) + rate_out * (wanted.choices * tokens_out)
    return ceiling + rate_call > float(most * PICOS_PER_NANO)


def _strike(
    wanted: Requirements, few: Handful, tokens_out: int, limits: RoutingLimits
) -> tuple[int, ...] | None:
    """Return a Rejection for each, 0 where it is eligible; None: all are."""
    load, full = few.standing.load, limits.full_for(wanted.tier)
    if _is_too_dear(wanted, few.dearest, tokens_out):
        struck = [
            _COST if _is_too_dear(wanted, rates, tokens_out) else _FULL if each >= full else 0
            for each, rates in zip(load, few.rates_picos, strict=True)
        ]
        return tuple(struck) if any(struck) else None
    if max(load) < full:
        return None
    return tuple([_FULL if each >= full else 0 for each in load])


def _work_out(wanted: Requirements, few: Handful, tokens_out: int) -> tuple[Workings, list[int]]:
    """Score each, by the formulae of `view` and `scoring`; also return their places, best first."""
    standing, cut = few.standing, few.cut
    first_ms: Row = standing.first_ms
    token_ms: Row = standing.token_ms
    free: Row = standing.free
    room: Row = standing.room.copy()
    if cut is not None:
        first_ms, token_ms, free, room = cut(first_ms), cut(token_ms), cut(free), cut(room)
    expected_out = float(min(tokens_out, TOKENS_OUT_EXPECTED))
    latency = [
        token * expected_out + first for token, first in zip(token_ms, first_ms, strict=True)
    ]
    outputs, inputs = wanted.choices * expected_out, float(wanted.tokens_in_expected)
    cost = [
        rate_out * outputs + rate_in * inputs + rate_call
        for rate_in, rate_out, rate_call in few.rates_picos
    ]
    merit, by_cost, by_latency, by_room = _weighed(few, wanted.weights)
    lowest, soon_ms = by_cost * min(cost), max(min(latency), UNNOTICED_MS)
    soonest = by_latency * soon_ms
    scores = [
        worth + lowest / dear + (soonest / slow if slow > soon_ms else by_latency) + by_room * roomy
        for worth, dear, slow, roomy in zip(merit, cost, latency, room, strict=True)
    ]
    # Of equals the first comes first.
    ranked = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    near = _near(scores, scores[ranked[0]])
    drawn = [free[place] for place in near]
    if few.servers is not None:
        drawn = parted_among_few(drawn, [few.servers[place] for place in near])
    made = Workings(few, scores, cost, latency, soon_ms, room, near, drawn)
    return made, ranked


def _weighed(few: Handful, asked: Weights) -> tuple[Row, float, float, float]:
    """Return (what the terms make of the score, and the weights of its other parts)."""
    found = few.weighed.get(asked)
    if found is None:
        if len(few.weighed) >= REMEMBERED_MAX:
            few.weighed.clear()
        by_quality, by_fit, *others = normal(asked).tolist()
        columns = zip(few.quality, few.domain_fit, strict=True)
        merit = tuple(by_quality * quality + by_fit * fit for quality, fit in columns)
        found = few.weighed[asked] = (merit, *others)
    return found


def _near(scores: Row, best: float) -> list[int]:
    """Return the places of those near the best."""
    least = best * (1 - NEAR_BEST) if best > 0.0 else best
    return [place for place, score in enumerate(scores) if score >= least]


def _draw(free: Row, random: Random) -> int:
    """As `route` draws one of those near the best."""
    sums = list(accumulate(free))
    return bisect(sums, random.random() * sums[-1], 0, len(sums) - 1)


def _plan(
    wanted: Requirements, few: Handful, order: list[int], tokens_out: int
) -> tuple[Candidate, ...]:
    bound, outputs, plan = wanted.tokens_in_bound, wanted.choices * tokens_out, []
    for place in order:
        rate = few.rates[place]
        ceiling_nanos = charge_nanos(rate.picos(bound, outputs))
        plan.append(Candidate(few.numbered[place], rate, tokens_out, ceiling_nanos))
    return tuple(plan)

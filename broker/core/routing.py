"""Decides where a call goes: eligible, then scored, then ranked; a function of values.

The first place is drawn at random among those within NEAR_BEST of the best score, weighted by free
capacity, so that one cheap endpoint is not stampeded (Mitzenmacher, "The Power of Two Choices in
Randomized Load Balancing", 2001).
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np

from broker.core.eligibility import reject, shown
from broker.core.market import NO_LIMIT_TOKENS, Floats, Market, Numbers
from broker.core.pulse import Pulse
from broker.core.requirements import Requirements
from broker.core.scoring import score_parts, weigh
from broker.core.view import RoutingLimits, View
from pricing.book import Rate
from pricing.money import PICOS_PER_NANO, charge_nanos

NEAR_BEST = 0.03


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint that may serve the call, with the most that it can cost there."""

    number: int
    rate: Rate
    tokens_out_max: int
    """Output limit of each choice, sent upstream so that the charge stays under the hold."""
    ceiling_nanos: int


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """Where a call goes, and why. Arrays of eligible endpoints are aligned and in rank order."""

    plan: tuple[Candidate, ...]
    """The first of the ranking, as many as there may be attempts."""
    ranking: Numbers
    scores: Floats
    parts: Floats
    """Shape (5, eligible), rows as in PARTS."""
    costs_nanos: Floats
    """Expected cost."""
    rejected: Numbers
    reasons: Numbers
    """A Rejection for each of `rejected`."""
    price_version: int

    @property
    def hold_nanos(self) -> int:
        """The dearest permitted plan: only one attempt is ever paid, so the dearest candidate."""
        return max((each.ceiling_nanos for each in self.plan), default=0)


def route(
    wanted: Requirements,
    market: Market,
    pulse: Pulse,
    limits: RoutingLimits,
    chance: tuple[Random, float],
) -> Decision | None:
    """Decide. `chance` is (random source, now in seconds). None: no endpoint has that name here."""
    random, now_s = chance
    group = market.group(wanted.task, wanted.model)
    if group is None:
        return None
    seen = shown(wanted, market, group)
    if seen is not None and not seen.any():
        return None
    view = View.of(wanted, market, group, pulse, limits)
    reasons = reject(wanted, market, view, pulse, now_s)
    if seen is not None:
        reasons = np.where(seen, reasons, -1)
    eligible = np.flatnonzero(reasons == 0)
    refused = np.flatnonzero(reasons > 0)
    parts = score_parts(view, eligible)
    scores = weigh(wanted.weights, parts)
    order = _rank(wanted, market, view, eligible, scores, random)
    ranked = eligible[order]
    return Decision(
        plan=tuple(_candidate(market, view, int(at)) for at in ranked[: limits.attempts_max]),
        ranking=group.numbers[ranked],
        scores=scores[order],
        parts=parts[:, order],
        costs_nanos=view.cost_picos[ranked] / PICOS_PER_NANO,
        rejected=group.numbers[refused],
        reasons=reasons[refused],
        price_version=market.book.version,
    )


def _rank(
    wanted: Requirements,
    market: Market,
    view: View,
    eligible: Numbers,
    scores: Floats,
    random: Random,
) -> Numbers:
    """Return the order of the eligible: by the caller's order of providers, then by score."""
    if eligible.size < 2:
        return np.arange(eligible.size)
    order = np.argsort(-scores, kind="stable")
    if wanted.providers_order:
        places = {provider: place for place, provider in enumerate(wanted.providers_order)}
        numbers = view.group.numbers[eligible[order]].tolist()
        wishes = [
            places.get(market.endpoint(number).deployment.provider, len(places))
            for number in numbers
        ]
        return order[np.argsort(np.array(wishes), kind="stable")]
    near = int(np.count_nonzero(scores >= scores[order[0]] * (1 - NEAR_BEST)))
    if near > 1:
        nearest = eligible[order[:near]]
        first = _draw(view.group.capacity[nearest] * view.free_share(nearest), random)
        order = np.concatenate((order[first : first + 1], order[:first], order[first + 1 :]))
    return order


def _draw(weights: Floats, random: Random) -> int:
    edges = np.cumsum(weights)
    drawn = int(np.searchsorted(edges, random.random() * edges[-1], side="right"))
    return min(drawn, weights.size - 1)


def _candidate(market: Market, view: View, at: int) -> Candidate:
    number = int(view.group.numbers[at])
    rate = market.book.rate(number)
    tokens_out = int(view.tokens_out[at])
    assert tokens_out < NO_LIMIT_TOKENS
    ceiling = charge_nanos(rate.picos(view.tokens_in_bound, view.choices * tokens_out))
    return Candidate(number, rate, tokens_out, ceiling)

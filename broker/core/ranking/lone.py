"""The decision where the terms leave one endpoint: what `route` does, in plain numbers.

Most calls name their endpoint. For one endpoint the arrays of `route` cost five times what they
save, and their code evicts other code from the processor's caches: this is an eighth of a call's
CPU. A test holds both to the same decision.
"""

from __future__ import annotations

from functools import lru_cache

from broker.core.candidates.scoring import free_share, normal
from broker.core.candidates.view import TOKENS_OUT_EXPECTED, RoutingLimits
from broker.core.decision import Candidate, Decision
from broker.core.health.pulse import Pulse
from broker.core.market import Lone, Market, Shortlist
from broker.core.requirements import Requirements, Weights
from pricing.money import charge_nanos
from pricing.tiers import STANDARD


def decide_alone(
    wanted: Requirements, market: Market, listed: Shortlist, pulse: Pulse, limits: RoutingLimits
) -> Decision | None:
    """Return the decision; None where the one may be rejected, or something was learned of it,
    which is for `route` to tell."""
    one = listed.lone
    assert one is not None
    if wanted.prompt is not None and market.lessons is not None:
        return None
    number, in_flight = one.number, pulse.load_of(one.deployment)
    load = in_flight / one.capacity
    if load >= limits.queue_factor or in_flight >= pulse.limit_at[number]:
        return None
    if _may_be_rejected(wanted, one):  # where all there is is ejected it is tried
        return None
    tokens_out = wanted.tokens_out_max
    if tokens_out is None or not wanted.task.generates:
        tokens_out = output_limit(wanted, one, limits)
    choices = wanted.choices
    expected_out = choices * float(min(tokens_out, TOKENS_OUT_EXPECTED))
    cost = one.rate_out * expected_out + one.rate_in * wanted.tokens_in_expected + one.rate_call
    available = free_share(load) * pulse.availability_at[number]
    quality, fit, cheap, quick, there = _shares(wanted.weights)
    good, apt = one.quality, one.domain_fit
    score = quality * good + fit * apt + cheap + quick + there * available
    rate = market.rate(number)
    ceiling_nanos = charge_nanos(rate.picos(wanted.tokens_in_bound, choices * tokens_out))
    return Decision(
        (Candidate(number, rate, tokens_out, ceiling_nanos),),
        listed.numbers,
        (score, good, apt, 1.0, 1.0, available, cost),
        listed.rejected,
        listed.reasons,
        market.book.version,
    )


def _may_be_rejected(wanted: Requirements, one: Lone) -> bool:
    most = wanted.tokens_out_max or 0
    return (
        wanted.tier is not STANDARD
        or wanted.max_cost_nanos is not None
        or wanted.latency_ms_max is not None
        or one.context_tokens < wanted.tokens_in_context + most
        or one.output_tokens < most
    )


def output_limit(wanted: Requirements, one: Lone, limits: RoutingLimits) -> int:
    """Of a call without a limit of its own."""
    if not wanted.task.generates:
        return 0
    prompt = min(wanted.tokens_in_bound, 2 * wanted.tokens_in_context + 64)
    return min(one.output_tokens, limits.tokens_out_default, max(one.context_tokens - prompt, 1))


@lru_cache(maxsize=256)
def _shares(weights: Weights) -> tuple[float, ...]:
    return tuple(normal(weights).tolist())

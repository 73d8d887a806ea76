"""Decides where a call goes, or says in a sentence why it can go nowhere."""

from __future__ import annotations

from collections import Counter

import numpy as np

from broker.core.catalog import Endpoint
from broker.core.eligibility import Rejection
from broker.core.requirements import Requirements
from broker.core.routing import Decision, route
from broker.errors import BrokerError, ModelUnknown, NothingFits, TooManyCalls
from broker.flows.runtime import Runtime
from pricing.money import charge_nanos, format_rate, format_usd

REJECTIONS_TOLD_MAX = 20
_PRICED_OUT = frozenset({Rejection.RATE_TOO_HIGH, Rejection.COST_TOO_HIGH})
_PASSING = frozenset({Rejection.FULL, Rejection.EJECTED, Rejection.NOT_PRESENT})
"""Reasons that may be gone in a moment."""
_RETRY_AFTER_S = 1.0


def choose(wanted: Requirements, runtime: Runtime) -> Decision:
    """Return the decision, which may be without a candidate. Raises ModelUnknown."""
    chance = (runtime.random, runtime.now_s())
    decision = route(wanted, runtime.market, runtime.pulse, runtime.routing, chance)
    if decision is None:
        raise ModelUnknown(
            f"No endpoint named '{wanted.model}' serves {wanted.task} here. "
            "GET /v1/models lists what there is."
        )
    return decision


def refusal(wanted: Requirements, decision: Decision, runtime: Runtime) -> BrokerError:
    """Return the error for a decision without a candidate, with who was rejected and why.

    TooManyCalls when all that fit are full, else NothingFits, with the cheapest price that would
    have fitted where the price was in the way.
    """
    reasons = {Rejection(int(each)) for each in decision.reasons}
    facts: dict[str, object] = {"rejected": _told(decision, runtime)}
    if Rejection.FULL in reasons and reasons <= _PASSING:
        full = decision.rejected[decision.reasons == Rejection.FULL]
        deployments = [runtime.market.endpoint(int(n)).deployment.number for n in full]
        runtime.pulse.refuse(np.array(deployments, dtype=np.int64))
        return TooManyCalls(
            "Every endpoint that fits is full.",
            code="providers_full",
            retry_after_s=_RETRY_AFTER_S,
            facts=facts,
        )
    if reasons <= _PASSING:
        return NothingFits(
            "Every endpoint that fits is away at the moment.",
            code="providers_away",
            status=503,
            retry_after_s=_RETRY_AFTER_S,
            facts=facts,
        )
    if reasons & _PRICED_OUT:
        return _priced_out(wanted, decision, runtime, facts)
    return NothingFits(f"No endpoint fits: {_counted(decision)}.", facts=facts)


def _priced_out(
    wanted: Requirements, decision: Decision, runtime: Runtime, facts: dict[str, object]
) -> NothingFits:
    dear = decision.rejected[np.isin(decision.reasons, [each.value for each in _PRICED_OUT])]
    cheapest = min(
        (runtime.market.endpoint(int(number)) for number in dear),
        key=lambda each: _ceiling_nanos(wanted, each, runtime),
    )
    rate = runtime.market.book.rate(cheapest.number)
    facts["cheapest"] = {
        "endpoint": cheapest.name,
        "price_in_usd": format_rate(rate.rate_in_micros),
        "price_out_usd": format_rate(rate.rate_out_micros),
        "price_call_usd": format_usd(rate.rate_call_nanos),
        "cost_max_usd": format_usd(_ceiling_nanos(wanted, cheapest, runtime)),
    }
    return NothingFits(
        f"Nothing fits within the price asked for. The cheapest that otherwise fits is "
        f"{cheapest.name} at {format_rate(rate.rate_in_micros)} in and "
        f"{format_rate(rate.rate_out_micros)} out USD per million tokens, at most "
        f"{format_usd(_ceiling_nanos(wanted, cheapest, runtime))} USD for this call.",
        code="nothing_within_price",
        facts=facts,
    )


def _ceiling_nanos(wanted: Requirements, endpoint: Endpoint, runtime: Runtime) -> int:
    limit = wanted.tokens_out_max
    if not wanted.task.generates:
        limit = 0
    elif limit is None:
        limit = min(
            runtime.routing.tokens_out_default,
            endpoint.max_output_tokens or runtime.routing.tokens_out_default,
            endpoint.context_length_tokens or runtime.routing.tokens_out_default,
        )
    rate = runtime.market.book.rate(endpoint.number)
    return charge_nanos(rate.picos(wanted.tokens_in_bound, wanted.choices * limit))


def _told(decision: Decision, runtime: Runtime) -> list[dict[str, str]]:
    pairs = zip(decision.rejected.tolist(), decision.reasons.tolist(), strict=True)
    return [
        {
            "endpoint": runtime.market.endpoint(number).name,
            "reason": Rejection(reason).name.lower(),
        }
        for number, reason in list(pairs)[:REJECTIONS_TOLD_MAX]
    ]


def _counted(decision: Decision) -> str:
    counts = Counter(Rejection(int(each)).name.lower() for each in decision.reasons)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())

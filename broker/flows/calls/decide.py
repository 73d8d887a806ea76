"""Decides where a call goes, or says in a sentence why it can go nowhere."""

from __future__ import annotations

import msgspec
import numpy as np

from broker.core.candidates.eligibility import Rejection, shortlist
from broker.core.candidates.reasons import counted, tally
from broker.core.candidates.refusal import Cause, cause_of
from broker.core.candidates.view import ceiling_picos, output_limit
from broker.core.columns import AUTO, Numbers
from broker.core.decision import Candidate, Decision
from broker.core.requirements import Requirements
from broker.core.routing import route
from broker.errors import BrokerError, ModelUnknown, NothingFits, TooManyCalls
from broker.flows.runtime import Runtime
from pricing.money import charge_nanos, format_rate, format_usd

REJECTIONS_TOLD_MAX = 20
_RETRY_AFTER_S = 1.0
_RETRY_AFTER_S_MAX = 60.0
_SPREAD = 0.5


def choose(wanted: Requirements, runtime: Runtime, *, whole: bool = True) -> Decision:
    """Return the decision, which may be without a candidate; where it need not be `whole`, as in
    `route`. Raises ModelUnknown."""
    chance = (runtime.random, runtime.now_s())
    decision = route(wanted, runtime.market, runtime.pulse, runtime.routing, chance, whole=whole)
    if decision is None:
        named = "" if wanted.model == AUTO else f" named '{wanted.model}'"
        raise ModelUnknown(
            f"No endpoint{named} serves {wanted.task} here. GET /v1/models lists what there is."
        )
    return decision


def refusal(
    wanted: Requirements, decision: Decision, runtime: Runtime, *, counts: bool = True
) -> BrokerError:
    """Return the error for a decision without a candidate, with who was rejected and why.

    TooManyCalls when all that fit are full, else NothingFits, with the cheapest price that would
    have fitted where the price was in the way. `counts`: a call that the full turn away is demand,
    which moves their prices; one that is only thought of is none.
    """
    cause = cause_of(tally(decision.reasons))
    facts: dict[str, object] = {"rejected": rejections(decision, runtime)}
    if cause is Cause.TIER:
        return NothingFits(
            f"No endpoint that is asked for has a price for the tier '{wanted.tier}'.",
            code="tier_unpriced",
            facts=facts,
        )
    if cause is Cause.FULL:
        full = decision.rejected[decision.reasons == Rejection.FULL]
        if counts and not wanted.tier.yields:
            runtime.pulse.refuse(runtime.market.columns.deployment[full])
        return TooManyCalls(
            f"No endpoint that fits has room to spare for the tier '{wanted.tier}'."
            if wanted.tier.yields
            else "Every endpoint that fits is full.",
            code="providers_full",
            retry_after_s=room_in_s(full, runtime),
            facts=facts,
        )
    if cause is Cause.AWAY:
        return NothingFits(
            "Every endpoint that fits is away at the moment.",
            code="providers_away",
            status=503,
            retry_after_s=_RETRY_AFTER_S,
            facts=facts,
        )
    if cause is Cause.PRICE:
        return _priced_out(wanted, decision, runtime, facts)
    if Rejection.CONTEXT_TOO_SHORT in decision.reasons:
        return _too_long(wanted, decision, runtime, facts)
    return _unfit(decision, runtime, facts)


def _unfit(decision: Decision, runtime: Runtime, facts: dict[str, object]) -> NothingFits:
    said = f"No endpoint fits: {counted(decision.reasons)}."
    short = decision.rejected[decision.reasons == Rejection.OUTPUT_TOO_SHORT]
    if short.size:
        longest = runtime.market.columns.output_tokens[short].max()
        said += f" The longest answer is {longest:,} tokens."
    return NothingFits(said, facts=facts)


def room_in_s(full: Numbers, runtime: Runtime) -> float:
    """Return in how many seconds the first of these endpoints should have a place, by how long its
    calls take; spread, so that not all who are told come back at once."""
    pulse, columns = runtime.pulse, runtime.market.columns
    deployments, capacity = columns.deployment[full], columns.capacity[full]
    most = np.minimum(capacity * runtime.routing.queue_factor, pulse.limit[full])
    over = np.maximum(pulse.load(deployments) - most, 0.0) + 1.0
    soonest_s = (pulse.service_s[deployments] * over / np.minimum(capacity, most)).min()
    soonest_s = min(float(soonest_s), _RETRY_AFTER_S_MAX)
    return max(soonest_s, _RETRY_AFTER_S) * (1.0 + _SPREAD * runtime.random.random())


def _priced_out(
    wanted: Requirements, decision: Decision, runtime: Runtime, facts: dict[str, object]
) -> NothingFits:
    anyhow = msgspec.structs.replace(
        wanted, max_rate_in_micros=None, max_rate_out_micros=None, max_cost_nanos=None
    )
    chance = (runtime.random, runtime.now_s())
    fitting = route(anyhow, runtime.market, runtime.pulse, runtime.routing, chance)
    if fitting is None or not fitting.plan:
        return _unfit(decision, runtime, facts)
    cheapest = _cheapest(anyhow, fitting.eligible, runtime)
    name, rate = runtime.market.endpoint(cheapest.number).name, cheapest.rate
    price_in, price_out = format_rate(rate.rate_in_micros), format_rate(rate.rate_out_micros)
    cost_max = format_usd(cheapest.ceiling_nanos)
    facts["cheapest"] = {
        "endpoint": name,
        "price_in_usd": price_in,
        "price_out_usd": price_out,
        "price_call_usd": format_usd(rate.rate_call_nanos),
        "ceiling_cost_usd": cost_max,
    }
    return NothingFits(
        f"Nothing fits within the price asked for. The cheapest that otherwise fits is {name} at "
        f"{price_in} in and {price_out} out USD per million tokens, at most {cost_max} USD for "
        "this call.",
        code="nothing_within_price",
        facts=facts,
    )


def _cheapest(wanted: Requirements, eligible: Numbers, runtime: Runtime) -> Candidate:
    """Return who of those eligible may cost the least."""
    listed = shortlist(wanted, runtime.market)
    assert listed is not None, "somebody on it is eligible"
    limits = output_limit(wanted, listed, runtime.routing)
    ceilings = ceiling_picos(wanted, listed, limits)
    ceilings[~np.isin(listed.numbers, eligible)] = np.inf
    place = int(ceilings.argmin())
    number = listed.numbers.item(place)
    limit = limits if isinstance(limits, int) else limits.item(place)
    rate = runtime.market.rate(number, wanted.tier)
    picos = rate.picos(wanted.tokens_in_bound, wanted.choices * limit)
    return Candidate(number, rate, limit, charge_nanos(picos))


def _too_long(
    wanted: Requirements, decision: Decision, runtime: Runtime, facts: dict[str, object]
) -> NothingFits:
    """What is rejected for its context meets the terms, so a shorter prompt would be served.

    Libraries above OpenAI's client know it by its words, LangChain by those before the colon and
    LiteLLM by those after it, and then shorten the prompt by themselves.
    """
    short = decision.rejected[decision.reasons == Rejection.CONTEXT_TOO_SHORT]
    longest = int(runtime.market.columns.context_tokens[short].max())
    asked = wanted.tokens_out_max or 0
    what = "prompt" if wanted.tokens_in_longest is None else "longest text"
    answer = f" and up to {asked:,} of the answer" if asked else ""
    return NothingFits(
        f"The {what if asked < longest else 'answer asked for'} is too long: this model's maximum "
        f"context length is {longest:,} tokens, about {wanted.tokens_in_context:,} tokens of the "
        f"{what}{answer} are too many. Shorten the prompt, or ask for less.",
        code="context_length_exceeded",
        status=400,
        facts=facts,
    )


def rejections(decision: Decision, runtime: Runtime) -> list[dict[str, str]]:
    """Return the first of who was rejected by name, each with the reason."""
    first = slice(REJECTIONS_TOLD_MAX)
    told = zip(decision.rejected[first].tolist(), decision.reasons[first].tolist(), strict=True)
    return [
        {
            "endpoint": runtime.market.endpoint(number).name,
            "reason": Rejection(reason).name.lower(),
        }
        for number, reason in told
    ]

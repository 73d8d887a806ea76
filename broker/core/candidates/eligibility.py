"""Who may serve a call: the hard filters, each with its reason, in one place.

What is asked of an endpoint's terms and price has one answer until the market changes, and is
remembered with the market. What depends on this very call or this very moment is measured anew.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from operator import attrgetter

import numpy as np

from broker.core.candidates.in_numbers import in_numbers
from broker.core.candidates.named import shortlist_of_named
from broker.core.candidates.servers import servers_of
from broker.core.candidates.view import RoutingLimits, View, ceiling_picos
from broker.core.catalog import Task
from broker.core.columns import NO_LIMIT_TOKENS, Bools, Floats, Numbers, as_index
from broker.core.health.pulse import Pulse
from broker.core.market import Market, Shortlist
from broker.core.requirements import Requirements
from pricing.money import PICOS_PER_NANO
from pricing.tiers import Tier

SHORTLISTS_MAX = 256
"""Callers name what they like, so what is remembered of one market has an end."""


class Rejection(enum.IntEnum):
    """Why an endpoint was not eligible; kept by its number in the stories of calls."""

    NOT_PRESENT = 1
    UNPRICED = 2
    PROVIDER_EXCLUDED = 3
    VERSION = 4
    REGION = 5
    RETAINS_DATA = 6
    TRAINS_ON_DATA = 7
    QUALITY_TOO_LOW = 8
    RATE_TOO_HIGH = 9
    CONTEXT_TOO_SHORT = 10
    OUTPUT_TOO_SHORT = 11
    COST_TOO_HIGH = 12
    TOO_SLOW = 13
    EJECTED = 14
    FULL = 15
    MODEL_NOT_ALLOWED = 16
    DOMAIN_NOT_ALLOWED = 17
    TIER_UNPRICED = 18


class _Strikes:
    """The first reason that struck each endpoint; 0 while none has."""

    __slots__ = ("_reasons", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._reasons: Numbers | None = None

    @property
    def any(self) -> bool:
        """False: nothing can have struck, so nobody need look."""
        return self._reasons is not None

    @property
    def reasons(self) -> Numbers:
        if self._reasons is None:
            self._reasons = np.zeros(self._size, dtype=np.int64)
        return self._reasons

    def strike(self, bad: Bools, reason: Rejection) -> None:
        self.reasons[bad & (self.reasons == 0)] = reason

    @property
    def standing(self) -> Bools:
        if self._reasons is None:
            return np.ones(self._size, dtype=bool)
        return np.asarray(self._reasons == 0, dtype=bool)


def shortlist(wanted: Requirements, market: Market) -> Shortlist | None:
    """Return the endpoints whose terms meet the demands; None: there is no such model here.

    A private endpoint that the account may not see is neither on the list nor among the rejected:
    it must not even be named.
    """
    key: Hashable = _terms_of(wanted)
    if market.columns.has_private:
        key = (key, wanted.account_id)
    if wanted.quality_min is not None and not is_taught(wanted, market):
        key = (key, wanted.quality_min)
    try:
        return market.shortlists[key]
    except KeyError:
        made = shortlist_of_named(wanted, market) or _shortlist(wanted, market)
    if len(market.shortlists) >= SHORTLISTS_MAX:
        _forget_some(market)
    market.shortlists[key] = made
    return made


def _forget_some(market: Market) -> None:
    """Forget those of one endpoint, which are made in no time: callers who name one after the other
    would have all others forgotten again and again. Where there are few of them, forget all."""
    lists = market.shortlists
    long = {key: each for key, each in lists.items() if each is not None and each.lone is None}
    lists.clear()
    if 2 * len(long) <= SHORTLISTS_MAX:
        lists.update(long)
    else:
        market.fronts.clear()


_terms_of = attrgetter(
    "task",
    "model",
    "domain",
    "version",
    "providers_only",
    "providers_ignore",
    "regions",
    "allow_retention",
    "allow_training",
    "max_rate_in_micros",
    "max_rate_out_micros",
    "models_only",
    "domains_only",
    "tier",
)
"""The terms that every call asks for, as one tuple: in C, in a third of the time."""


def is_taught(wanted: Requirements, market: Market) -> bool:
    """True where a call's qualities are what was learned; else they are what is declared."""
    return market.lessons is not None and wanted.prompt is not None and bool(wanted.prompt.cells)


def _shortlist(wanted: Requirements, market: Market) -> Shortlist | None:
    members = market.columns.members(wanted.task, wanted.model)
    if members is not None:
        members = _shown(wanted, market, members)
    if members is None or not members.size:
        return None
    # By `take`: `[:, members]` would lay the rates of each side by side, and scatter the rows.
    rates = market.book.matrix(len(market.endpoints)).take(members, axis=1).astype(np.float64)
    if wanted.tier is not Tier.STANDARD and not market.quoted:
        rates = _rates_of_tier(wanted.tier, market, members, rates)
    quality, domain_fit = _in_domain(wanted, market, members)
    reasons = _reject_by_terms(wanted, market, members, quality, rates)
    kept, refused = np.flatnonzero(reasons == 0), np.flatnonzero(reasons)
    numbers, rates, columns = members[kept], rates.take(kept, axis=1), market.columns
    at = as_index(numbers)  # a slice copies nothing
    deployments = columns.deployment[at]
    context_tokens, output_tokens = columns.context_tokens[at], columns.output_tokens[at]
    rate_call = rates[2] * PICOS_PER_NANO if rates[2].any() else None
    made = Shortlist(
        numbers=numbers,
        deployments=deployments,
        at=at,
        deployments_at=as_index(deployments),
        servers=servers_of(deployments),
        rate_in=rates[0],
        rate_out=rates[1],
        rate_call=rate_call,
        typical=_medians(rates),
        capacity=columns.capacity[at],
        context_tokens=context_tokens,
        output_tokens=output_tokens,
        context_tokens_min=int(context_tokens.min(initial=NO_LIMIT_TOKENS)),
        output_tokens_min=int(output_tokens.min(initial=NO_LIMIT_TOKENS)),
        quality=quality[kept],
        domain_fit=domain_fit[kept],
        rejected=members[refused],
        reasons=reasons[refused],
        lone=None,
        few=None,
    )
    return in_numbers(wanted, market, made)


def _medians(rates: Floats) -> tuple[float, float, float]:
    """Return the middle rates in pico-dollars; 0 where nobody is left."""
    if not rates.shape[1]:
        return 0.0, 0.0, 0.0
    # By hand: `np.median` would load the half of numpy that is about masked arrays.
    middle = ((rates.shape[1] - 1) // 2, rates.shape[1] // 2)
    parted = np.partition(rates, middle, axis=1)
    rate_in, rate_out, rate_call = parted[:, middle].mean(axis=1).tolist()
    return rate_in, rate_out, rate_call * PICOS_PER_NANO


def _rates_of_tier(tier: Tier, market: Market, members: Numbers, rates: Floats) -> Floats:
    """Return the rates of a tier; NaN for who does not price it."""
    tiered = np.full(rates.shape, np.nan)
    for at, number in enumerate(members.tolist()):
        if tier in market.endpoint(number).tiers:
            if not rates[:, at].any():
                tiered[:, at] = 0.0
                continue
            rate = market.rate(number, tier)
            tiered[:, at] = rate.rate_in_micros, rate.rate_out_micros, rate.rate_call_nanos
    return tiered


def _shown(wanted: Requirements, market: Market, members: Numbers) -> Numbers:
    private = market.columns.private[members]
    if not private.any():
        return members
    seen = ~private
    for at in np.flatnonzero(private).tolist():
        visible_to = market.endpoint(int(members[at])).visible_to
        seen[at] = visible_to is None or wanted.account_id in visible_to
    return members[seen]


def _in_domain(wanted: Requirements, market: Market, members: Numbers) -> tuple[Floats, Floats]:
    """Return (quality, domain fit) of each member for the asked domain, or without one."""
    columns = market.columns
    if wanted.domain is None:
        # No domain is known, so the generalist is the safer choice.
        return columns.quality[members], np.where(columns.specialist[members], 0.5, 1.0)
    claims = columns.claims.get(wanted.domain)
    if claims is None:
        return columns.quality[members], np.where(columns.specialist[members], 0.0, 0.5)
    numbers, declared = claims
    quality, domain_fit = columns.quality.copy(), np.where(columns.specialist, 0.0, 0.5)
    quality[numbers], domain_fit[numbers] = declared, 1.0
    return quality[members], domain_fit[members]


def _reject_by_terms(
    wanted: Requirements, market: Market, members: Numbers, quality: Floats, rates: Floats
) -> Numbers:
    columns, strikes = market.columns, _Strikes(members.size)
    _strike_by_key(wanted, market, members, strikes)
    strikes.strike(market.away[members], Rejection.NOT_PRESENT)
    strikes.strike(np.isnan(rates[0]), Rejection.TIER_UNPRICED)
    strikes.strike(~_priced(wanted.task, rates), Rejection.UNPRICED)
    if wanted.providers_only is not None:
        listed = columns.provider.among(members, wanted.providers_only)
        strikes.strike(~listed, Rejection.PROVIDER_EXCLUDED)
    if wanted.providers_ignore:
        ignored = columns.provider.among(members, wanted.providers_ignore)
        strikes.strike(ignored, Rejection.PROVIDER_EXCLUDED)
    if wanted.version is not None:
        strikes.strike(~columns.version.among(members, [wanted.version]), Rejection.VERSION)
    if wanted.regions is not None:
        strikes.strike(~columns.region.among(members, wanted.regions), Rejection.REGION)
    if not wanted.allow_retention:
        strikes.strike(columns.retains_data[members], Rejection.RETAINS_DATA)
    if not wanted.allow_training:
        strikes.strike(columns.trains_on_data[members], Rejection.TRAINS_ON_DATA)
    if wanted.quality_min is not None and not is_taught(wanted, market):
        strikes.strike(quality < wanted.quality_min, Rejection.QUALITY_TOO_LOW)
    if wanted.max_rate_in_micros is not None:
        strikes.strike(rates[0] > wanted.max_rate_in_micros, Rejection.RATE_TOO_HIGH)
    if wanted.max_rate_out_micros is not None:
        strikes.strike(rates[1] > wanted.max_rate_out_micros, Rejection.RATE_TOO_HIGH)
    return strikes.reasons


def _strike_by_key(
    wanted: Requirements, market: Market, members: Numbers, strikes: _Strikes
) -> None:
    """Strike what the caller's key does not allow."""
    if wanted.models_only is None and wanted.domains_only is None:
        return
    for at, endpoint in enumerate(map(market.endpoint, members.tolist())):
        models, domains = wanted.models_only, wanted.domains_only
        if models is not None and endpoint.model not in models and endpoint.name not in models:
            strikes.reasons[at] = Rejection.MODEL_NOT_ALLOWED
        elif domains is not None and endpoint.domains and domains.isdisjoint(endpoint.domains):
            strikes.reasons[at] = Rejection.DOMAIN_NOT_ALLOWED


def _priced(task: Task, rates: Floats) -> Bools:
    """Say whose price is more than nothing for what the task counts."""
    paid: Bools = rates[2] > 0
    if task is not Task.INFER:
        paid |= rates[0] > 0
    if task.generates:
        paid |= rates[1] > 0
    return paid


def reject(
    wanted: Requirements,
    listed: Shortlist,
    view: View,
    limits: RoutingLimits,
    moment: tuple[Pulse, float],
) -> Numbers | None:
    """Return a Rejection for each endpoint of the view, 0 where it is eligible; None: all are.

    `moment` is (pulse, now in seconds).
    """
    load = view.load
    if not load.size:
        return None
    pulse, now_s = moment
    strikes = _Strikes(load.size)
    needed = wanted.tokens_in_context + (wanted.tokens_out_max or 0)
    if listed.context_tokens_min < needed:
        strikes.strike(listed.context_tokens < needed, Rejection.CONTEXT_TOO_SHORT)
    if wanted.tokens_out_max is not None and listed.output_tokens_min < wanted.tokens_out_max:
        strikes.strike(listed.output_tokens < wanted.tokens_out_max, Rejection.OUTPUT_TOO_SHORT)
    if wanted.max_cost_nanos is not None:
        ceiling, most_picos = (
            ceiling_picos(wanted, listed, view.tokens_out),
            _picos(wanted.max_cost_nanos),
        )
        if ceiling.item(ceiling.argmax()) > most_picos:
            strikes.strike(ceiling > most_picos, Rejection.COST_TOO_HIGH)
    if wanted.latency_ms_max is not None:
        strikes.strike(view.latency_ms > wanted.latency_ms_max, Rejection.TOO_SLOW)
    if wanted.quality_min is not None and view.quality is not listed.quality:
        strikes.strike(view.quality < wanted.quality_min, Rejection.QUALITY_TOO_LOW)
    ejected = pulse.doubts.ejected(listed.numbers, now_s)
    if ejected is not None and not ejected[strikes.standing].all():
        # Were everything that is left ejected, trying one beats refusing: never eject all.
        strikes.strike(ejected, Rejection.EJECTED)
    if view.fullest >= limits.full_for(wanted.tier) or pulse.has_limits:
        strikes.strike(full(wanted.tier, view, limits, pulse), Rejection.FULL)
    return strikes.reasons if strikes.any else None


def full(tier: Tier, view: View, limits: RoutingLimits, pulse: Pulse) -> Bools:
    """Say who has as much to do as it is declared, or was learned, to manage."""
    most = limits.full_for(tier)
    taken: Bools = view.load >= most
    if pulse.has_limits:
        # In the same measure: what a tier may find taken, it may find taken of a limit as well.
        at_most = most / limits.queue_factor * pulse.limit[view.numbers]
        taken |= view.load * view.capacity >= at_most
    return taken


def _picos(nanos: int) -> float:
    # A float, for numpy is slow to compare an int with an array of floats.
    return float(nanos * PICOS_PER_NANO)

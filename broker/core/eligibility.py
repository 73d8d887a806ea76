"""Who may serve a call: the hard filters, each with its reason, in one place."""

from __future__ import annotations

import enum

import numpy as np

from broker.core.market import Bools, Group, Market, Numbers
from broker.core.pulse import Pulse
from broker.core.requirements import Requirements
from broker.core.view import View
from pricing.money import PICOS_PER_NANO


class Rejection(enum.IntEnum):
    """Why an endpoint was not eligible; the order is the order of the filters."""

    NOT_PRESENT = 1
    UNPRICED = 2
    PROVIDER_EXCLUDED = 3
    VERSION = 4
    CONTEXT_TOO_SHORT = 5
    OUTPUT_TOO_SHORT = 6
    REGION = 7
    RETAINS_DATA = 8
    TRAINS_ON_DATA = 9
    QUALITY_TOO_LOW = 10
    RATE_TOO_HIGH = 11
    COST_TOO_HIGH = 12
    TOO_SLOW = 13
    EJECTED = 14
    FULL = 15


class _Strikes:
    """The first reason that struck each endpoint; 0 while none has."""

    def __init__(self, size: int) -> None:
        self.reasons = np.zeros(size, dtype=np.int64)

    def strike(self, bad: Bools, reason: Rejection) -> None:
        self.reasons[bad & (self.reasons == 0)] = reason

    @property
    def standing(self) -> Bools:
        return np.asarray(self.reasons == 0, dtype=bool)


def shown(wanted: Requirements, market: Market, group: Group) -> Bools | None:
    """Say which endpoints the account may see; None: all. A private one must not even be named."""
    if not group.has_private:
        return None
    visible = [market.endpoint(number).visible_to for number in group.numbers.tolist()]
    return np.array([each is None or wanted.account_id in each for each in visible], dtype=bool)


def reject(wanted: Requirements, market: Market, view: View, pulse: Pulse, now_s: float) -> Numbers:
    """Return the first Rejection of each endpoint, 0 where it is eligible."""
    group = view.group
    strikes = _Strikes(group.numbers.size)
    if not group.all_callable:
        strikes.strike(~group.present, Rejection.NOT_PRESENT)
        strikes.strike(~group.priced, Rejection.UNPRICED)
    _strike_terms(wanted, market, view, strikes)
    _strike_measures(wanted, view, strikes)
    ejected = pulse.ejected(group.numbers, now_s)
    if ejected is not None and not ejected[strikes.standing].all():
        # Were everything that is left ejected, trying one beats refusing: never eject all.
        strikes.strike(ejected, Rejection.EJECTED)
    full = np.asarray(view.load >= view.full_above, dtype=bool)
    if full.any():
        strikes.strike(full, Rejection.FULL)
    return strikes.reasons


def _strike_terms(wanted: Requirements, market: Market, view: View, strikes: _Strikes) -> None:
    group = view.group
    if wanted.providers_only is not None or wanted.providers_ignore:
        strikes.strike(_excluded(wanted, market, group), Rejection.PROVIDER_EXCLUDED)
    if wanted.version is not None:
        versions = [market.endpoint(number).version for number in group.numbers.tolist()]
        strikes.strike(np.array([each != wanted.version for each in versions]), Rejection.VERSION)
    needed = wanted.tokens_in_expected + (wanted.tokens_out_max or 0)
    strikes.strike(group.context_tokens < needed, Rejection.CONTEXT_TOO_SHORT)
    if wanted.tokens_out_max is not None:
        strikes.strike(group.output_tokens < wanted.tokens_out_max, Rejection.OUTPUT_TOO_SHORT)
    if wanted.regions is not None:
        regions = [market.endpoint(each).deployment.region for each in group.numbers.tolist()]
        strikes.strike(np.array([each not in wanted.regions for each in regions]), Rejection.REGION)
    if not wanted.allow_retention:
        strikes.strike(group.retains_data, Rejection.RETAINS_DATA)
    if not wanted.allow_training:
        strikes.strike(group.trains_on_data, Rejection.TRAINS_ON_DATA)


def _strike_measures(wanted: Requirements, view: View, strikes: _Strikes) -> None:
    group = view.group
    if wanted.quality_min is not None:
        strikes.strike(view.quality < wanted.quality_min, Rejection.QUALITY_TOO_LOW)
    if wanted.max_rate_in_micros is not None:
        strikes.strike(group.rate_in > wanted.max_rate_in_micros, Rejection.RATE_TOO_HIGH)
    if wanted.max_rate_out_micros is not None:
        strikes.strike(group.rate_out > wanted.max_rate_out_micros, Rejection.RATE_TOO_HIGH)
    if wanted.max_cost_nanos is not None:
        ceiling = view.ceiling_picos()
        strikes.strike(ceiling > wanted.max_cost_nanos * PICOS_PER_NANO, Rejection.COST_TOO_HIGH)
    if wanted.latency_ms_max is not None:
        strikes.strike(view.latency_ms > wanted.latency_ms_max, Rejection.TOO_SLOW)


def _excluded(wanted: Requirements, market: Market, group: Group) -> Bools:
    providers = [market.endpoint(each).deployment.provider for each in group.numbers.tolist()]
    only = wanted.providers_only
    return np.array(
        [each in wanted.providers_ignore or (only is not None and each not in only)
         for each in providers],
        dtype=bool,
    )  # fmt: skip

"""Reads the market: every endpoint with its price, load and health, and who may see it."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from broker.core.catalog import Endpoint
from broker.core.market import Market, Presence
from broker.core.pulse import Pulse
from broker.flows.authenticate import Caller
from broker.store.accounts import Role
from pricing.book import EndpointUnpriced, Rate


class Health(enum.StrEnum):
    """Whether calls are sent to an endpoint now."""

    READY = "ready"
    DRAINING = "draining"
    DOWN = "down"
    EJECTED = "ejected"
    """Out of routing for a while, for it failed too often."""
    UNPRICED = "unpriced"


@dataclass(frozen=True, slots=True)
class Listing:
    """One endpoint as it stands; `load` is calls in flight over capacity."""

    endpoint: Endpoint
    rate: Rate | None
    load: float
    health: Health


def may_see(caller: Caller, endpoint: Endpoint) -> bool:
    """True when the endpoint is public, listed for the caller, its own, or all are seen."""
    return (
        endpoint.visible_to is None
        or caller.role is Role.OPERATOR
        or caller.account_id in endpoint.visible_to
        or caller.account_id == endpoint.deployment.provider_id
    )


def read_prices(market: Market, pulse: Pulse, now_s: float) -> list[Listing]:
    """Return all endpoints by name; `may_see` says which of them to show to whom."""
    pulse.fit(len(market.endpoints), _deployments(market))
    ejected = pulse.ejected_here(now_s) | pulse.ejected_elsewhere
    return [
        _listing(each, market, pulse, each.number in ejected)
        for each in map(market.endpoint, market.by_name.values())
    ]


def _listing(endpoint: Endpoint, market: Market, pulse: Pulse, ejected: bool) -> Listing:
    deployment = endpoint.deployment
    in_flight = pulse.load_of(deployment.number)
    try:
        rate = market.book.rate(endpoint.number)
    except EndpointUnpriced:
        rate = None
    presence = market.presence.get(deployment.number, Presence.READY)
    return Listing(
        endpoint, rate, in_flight / deployment.capacity, _health(presence, ejected, rate)
    )


def _health(presence: Presence, ejected: bool, rate: Rate | None) -> Health:
    if presence is not Presence.READY:
        return Health.DRAINING if presence is Presence.DRAINING else Health.DOWN
    if ejected:
        return Health.EJECTED
    return Health.READY if rate is not None else Health.UNPRICED


def _deployments(market: Market) -> int:
    return max(_numbers(market), default=-1) + 1


def _numbers(market: Market) -> Iterator[int]:
    return (each.deployment.number for each in market.endpoints if each is not None)

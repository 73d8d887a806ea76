"""Reads the market: every endpoint with its price, load and health, and who may see it."""

from __future__ import annotations

import enum

import msgspec

from broker.core.catalog import Endpoint
from broker.core.health.pulse import Pulse
from broker.core.market import Market, Presence
from broker.flows.access.authenticate import Caller
from broker.store.access.accounts import Role
from pricing.book import Rate


class Health(enum.StrEnum):
    """Whether calls are sent to an endpoint now."""

    READY = "ready"
    DRAINING = "draining"
    DOWN = "down"
    EJECTED = "ejected"
    """Out of routing for a while, for it failed too often."""
    UNPRICED = "unpriced"


class Listing(msgspec.Struct, frozen=True, gc=False):
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


class Look:
    """The market at one moment: what changes by the call is copied, and a thread may read it."""

    def __init__(self, market: Market, pulse: Pulse, now_s: float) -> None:
        pulse.fit(len(market.endpoints), int(market.columns.deployment.max(initial=-1)) + 1)
        self.market = market
        self._in_flight = pulse.in_flight + pulse.others_in_flight
        self._ejected = pulse.doubts.ejected_here(now_s) | pulse.doubts.elsewhere

    def listings(self) -> list[Listing]:
        """Return all endpoints by name; `may_see` says which of them to show to whom. Of 10,000
        it takes 10 ms, which calls should not wait for."""
        market = self.market
        in_flight, rates = self._in_flight.tolist(), market.book.matrix(len(market.endpoints))
        by_number: list[list[int]] = rates.T.tolist()
        found = []
        for number in market.by_name.values():
            endpoint = market.endpoint(number)
            deployment = endpoint.deployment
            rate = Rate(*by_number[number]) if any(by_number[number]) else None
            presence = market.presence.get(deployment.number, Presence.READY)
            health = _health(presence, number in self._ejected, rate)
            load = in_flight[deployment.number] / deployment.capacity
            found.append(Listing(endpoint, rate, load, health))
        return found


def _health(presence: Presence, ejected: bool, rate: Rate | None) -> Health:
    if presence is not Presence.READY:
        return Health.DRAINING if presence is Presence.DRAINING else Health.DOWN
    if ejected:
        return Health.EJECTED
    return Health.READY if rate is not None else Health.UNPRICED

"""What the control plane needs of the running broker, and hands to its controllers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

from litestar import Request
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.params import SkipValidation
from litestar.types import Dependencies
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.api.price_feed import PriceFeed
from broker.core.health.pulse import Pulse
from broker.core.market import Market
from broker.flows.access.authenticate import Caller
from broker.flows.access.keyring import Keyring
from broker.flows.market.heartbeat import HeartbeatDesk
from broker.live.room import Live
from broker.settings import Settings
from broker.store.sealing import Sealer
from broker.upstream.addresses import AddressPolicy

CallerRequest = Request[Caller, None, State]


class Parts(Protocol):
    """The share of the runtime that the control plane uses; `now_s` is a monotonic clock."""

    @property
    def settings(self) -> Settings: ...
    @property
    def engine(self) -> AsyncEngine: ...
    @property
    def market(self) -> Market: ...
    @property
    def pulse(self) -> Pulse: ...
    @property
    def sealer(self) -> Sealer: ...
    @property
    def addresses(self) -> AddressPolicy: ...
    @property
    def heartbeats(self) -> HeartbeatDesk: ...
    @property
    def keyring(self) -> Keyring: ...
    @property
    def live(self) -> Live: ...
    @property
    def calls_in_flight(self) -> int: ...
    @property
    def answered(self) -> Mapping[tuple[str, int], int]: ...
    @property
    def settles(self) -> bool: ...
    @property
    def leaving(self) -> bool: ...
    @property
    def stopping(self) -> bool: ...
    @property
    def clock(self) -> Callable[[], datetime]: ...
    @property
    def now_s(self) -> Callable[[], float]: ...


class Exposed(Protocol):
    """What `/metrics` shows."""

    async def text(self) -> bytes: ...


GivenEngine = NamedDependency[AsyncEngine]
GivenMarket = NamedDependency[SkipValidation[Market]]
GivenPulse = NamedDependency[Pulse]
GivenCaller = NamedDependency[SkipValidation[Caller]]
GivenParts = NamedDependency[SkipValidation[Parts]]
GivenFeed = NamedDependency[PriceFeed]
GivenExposition = NamedDependency[SkipValidation[Exposed]]
GivenTime = NamedDependency[datetime]
GivenSeconds = NamedDependency[float]


def dependencies(parts: Parts) -> Dependencies:
    """Return what a handler may ask for by parameter name."""

    def now() -> datetime:
        return parts.clock()

    def now_s() -> float:
        return parts.now_s()

    return {
        "engine": _given(lambda: parts.engine),
        "market": _given(lambda: parts.market),
        "pulse": _given(lambda: parts.pulse),
        "now": _given(now),
        "now_s": _given(now_s),
        "caller": Provide(_caller, sync_to_thread=False),
    }


def _given(part: Callable[[], object]) -> Provide:
    # Asked anew for each request, for the market is swapped whole when it changes.
    return Provide(part, sync_to_thread=False)


def _caller(request: CallerRequest) -> Caller:
    return request.user

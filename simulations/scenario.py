"""A scenario: everything that a run is made of, as one frozen value.

    Scenario = providers + classes of consumers + prices + signals + routing + how long

The same scenario and the same seed make the same run, bit for bit. Money is in the units of the
broker: rates in micro-dollars per million tokens, amounts in nano-dollars; what callers value is
in USD as floats, for nobody is charged a value.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from broker.core.candidates.view import RoutingLimits
from broker.errors import BrokerError
from pricing.choice import Choice
from pricing.guardrails import Guardrails
from pricing.schedule import Schedule
from simulations.demand import ConsumerClass
from simulations.supply import EndpointSpec, ProviderSpec


class ScenarioMalformed(BrokerError):
    """A scenario that makes no sense; `field` is where, such as `classes.0.value.mean_usd`."""

    status = 422
    code = "scenario_malformed"

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field


class Pace(enum.StrEnum):
    """How time goes by."""

    AUTO = "auto"
    """By slices where they can tell the scenario and many calls come in each, else by events."""
    EVENTS = "events"
    """Call by call, each decided by the live broker's `route` at its own moment: the reference."""
    SLICES = "slices"
    """Slice by slice: calls that come together are decided together, by `route_many` on the counts
    of one moment; for large markets of shared processors."""


@dataclass(frozen=True, slots=True)
class Signals:
    """How heartbeats and prices travel."""

    heartbeat_s: float = 1.0
    delay_s: float = 0.1
    """From a server to the broker, and as long from a new price to the calls decided on it."""
    loss: float = 0.0
    """The share of heartbeats that never arrive."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Who moves the prices: a controller by name with its numbers, for all but `choices`."""

    controller: str = "excess"
    parameters: Mapping[str, float] = field(default_factory=dict)
    choices: tuple[Choice, ...] = ()
    """For a provider, a domain or an endpoint; times are seconds of the run."""
    schedule: Schedule | None = None
    guardrails: Guardrails = field(default_factory=Guardrails)
    tick_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Pacing:
    """The engine's own numbers."""

    pace: Pace = Pace.AUTO
    """`events`, call by call, is exact; `slices` takes calls that come together as one, for large
    markets of shared processors; `auto` takes slices where they are worth it."""
    slice_s: float = 0.2
    """At most, and no more than a fifth of what a usual call takes on an idle server."""
    together_max: int = 64
    """At most so many calls of a slice are decided on the same counts, and no more than a fiftieth
    of the capacity on offer."""
    kept_calls_max: int = 100_000
    """Rows of the table of calls; beyond it every call has the same chance to be among them."""
    kept_ticks_max: int = 2_000
    """Points in time of the table of ticks; where there would be more, neighbours are merged."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """The whole of it. `start_s` is the Unix time at which it begins."""

    name: str
    horizon_s: float
    providers: tuple[ProviderSpec, ...]
    classes: tuple[ConsumerClass, ...]
    description: str = ""
    warm_up_s: float = 0.0
    """What happens before this is simulated and not counted."""
    start_s: float = 0.0
    prices: Prices = field(default_factory=Prices)
    signals: Signals = field(default_factory=Signals)
    routing: RoutingLimits = field(default_factory=RoutingLimits)
    learns_limits: bool = True
    """True: as the live broker, it learns from how long answers take, and from refusals, how many
    calls each server manages; False: it goes by declared capacities alone."""
    pacing: Pacing = field(default_factory=Pacing)
    seed: int = 1

    @property
    def endpoints(self) -> tuple[tuple[ProviderSpec, EndpointSpec], ...]:
        """Endpoints with their providers; the place of each is its number in all tables."""
        return tuple((provider, each) for provider in self.providers for each in provider.endpoints)

    @property
    def endpoint_names(self) -> tuple[str, ...]:
        """`provider/endpoint`, by number."""
        return tuple(f"{provider.name}/{each.name}" for provider, each in self.endpoints)

"""A market in which everything goes wrong at once: for what must hold whatever happens."""

from __future__ import annotations

from broker.core.catalog import Band
from pricing.book import Rate
from pricing.tiers import Tier
from simulations.demand import ConsumerClass, GammaBursts, Lengths, Mmpp, Value
from simulations.scenario import Prices, Scenario, Signals
from simulations.supply import (
    Brownout,
    EndpointSpec,
    LieAboutTokens,
    Outage,
    ProviderSpec,
    SharingServer,
    Undercut,
)

BAND = Band(
    floor_in_micros=2_000,
    list_in_micros=30_000,
    ceiling_in_micros=2_000_000,
    floor_out_micros=18_000,
    list_out_micros=120_000,
    ceiling_out_micros=8_000_000,
)


def endpoint(name: str, **more: object) -> EndpointSpec:
    """A small server."""
    given: dict[str, object] = {"capacity": 8, "cost": Rate(1_000, 10_000, 0)}
    server = SharingServer(c0_s=0.018, c1_s=3e-4, prefill_s=9e-5, batch_max=8)
    return EndpointSpec(name, server, BAND, **(given | more))  # type: ignore[arg-type]


def callers(name: str, **more: object) -> ConsumerClass:
    """Callers of short calls, more of them than fit."""
    given: dict[str, object] = {
        "arrivals": GammaBursts(2.0, 2.0),
        "value": Value(mean_usd=0.0004),
        "tokens_in": Lengths(800.0, 0.5),
        "tokens_out": Lengths(200.0, 0.5),
        "deadline_s": 30.0,
    }
    return ConsumerClass(name, **(given | more))  # type: ignore[arg-type]


def rough(horizon_s: float = 500.0, **more: object) -> Scenario:
    """The market; the first two endpoints fail and are slow, the third comes and goes."""
    providers = (
        ProviderSpec("failing", (endpoint("a", outages=(Outage(100.0, 200.0),), failures=0.05),)),
        ProviderSpec(
            "slow",
            (endpoint("b", brownouts=(Brownout(250.0, 400.0, 5.0),), queue_max=2),),
            LieAboutTokens(1.5),
        ),
        ProviderSpec("passing", (endpoint("c", enters_s=150.0, exits_s=450.0),), Undercut(0.05)),
    )
    classes = (
        callers("patient", patience_calls=2),
        callers("poor", budget_usd=0.002, accounts=3, headroom=1.5),
        callers("rushing", arrivals=Mmpp((0.2, 6.0), (60.0, 20.0)), deadline_s=4.0),
        callers("waiting", tier=Tier.FLEX),
    )
    given: dict[str, object] = {
        "signals": Signals(heartbeat_s=2.0, delay_s=1.5, loss=0.3),
        "prices": Prices(tick_s=2.0),
    }
    return Scenario("rough", horizon_s, providers, classes, **(given | more))  # type: ignore[arg-type]

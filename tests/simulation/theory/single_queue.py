"""One server with a line before it, a toll for each call, and callers who know what waiting costs.

A unit of money is a thousandth of a dollar; the mean service takes a second and each second in the
system costs a unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from broker.core.catalog import Band
from simulations.demand import ConsumerClass, Foresight, Lengths, Poisson, Value
from simulations.market import run
from simulations.measured.record import Code
from simulations.scenario import Prices, Scenario, Signals
from simulations.supply import EndpointSpec, ProviderSpec, QueueingServer

UNIT_USD = 1e-3
_UNIT_NANOS = 10**6
_WARM_UP_S = 500.0


@dataclass(frozen=True)
class Found:
    """What a run says, in units and calls per second."""

    joined: float
    welfare: float
    revenue: float


def callers(rate_per_s: float, value: Value, foresight: Foresight) -> ConsumerClass:
    """Callers who pay a unit for each second that their call takes."""
    return ConsumerClass(
        name="callers",
        arrivals=Poisson(rate_per_s),
        value=value,
        tokens_in=Lengths(1.0),
        tokens_out=Lengths(1.0),
        deadline_s=math.inf,
        delay_cost_usd_per_s=UNIT_USD,
        foresight=foresight,
        memory_s=4_000.0,
        stream=False,
    )


def simulated(who: ConsumerClass, toll: float, horizon_s: float, seed: int) -> Found:
    """Run the queue with a toll in units."""
    nanos = max(round(toll * _UNIT_NANOS), 1)
    band = Band(floor_call_nanos=nanos, list_call_nanos=nanos, ceiling_call_nanos=nanos)
    server = EndpointSpec("server", QueueingServer(1, 1.0), band, capacity=1_000)
    scenario = Scenario(
        name="queue",
        horizon_s=horizon_s,
        providers=(ProviderSpec("provider", (server,)),),
        classes=(who,),
        warm_up_s=_WARM_UP_S,
        prices=Prices("posted", tick_s=500.0),
        signals=Signals(heartbeat_s=500.0, delay_s=0.0),
        learns_limits=False,  # lines are what this is about
    )
    done = run(scenario, seed)
    assert done.money.is_conserved
    totals, scale = done.totals, _UNIT_NANOS * done.counted_s
    return Found(
        joined=totals.count(Code.SERVED) / done.counted_s,
        welfare=float(totals.worth_nanos.sum()) / scale,
        revenue=float(totals.charge_nanos.sum()) / scale,
    )

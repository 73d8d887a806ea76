"""The simulator's lines against Erlang 1917: how long calls wait for one server, and for several.

Calls come without memory and are served by `QueueingServer`, all through the broker's own routing;
what they wait is the time to the answer less the mean service.
"""

from __future__ import annotations

import math

import pytest

from broker.core.catalog import Band
from simulations.demand import ConsumerClass, Lengths, Poisson, Shape, Value
from simulations.market import run
from simulations.measured.record import Code
from simulations.scenario import Prices, Scenario, Signals
from simulations.supply import EndpointSpec, ProviderSpec, QueueingServer
from tests.simulation.theory.queues import waiting_s

SEEDS = (1, 2, 3)
HORIZON_S, WARM_UP_S = 9_000.0, 500.0
FREE = Band(floor_call_nanos=1, list_call_nanos=1, ceiling_call_nanos=1)


def waited_s(rate_per_s: float, servers: int, cv: float = 1.0) -> float:
    """The mean over seeds, where a mean service takes a second."""
    callers = ConsumerClass(
        name="callers",
        arrivals=Poisson(rate_per_s),
        value=Value(Shape.FIXED, 1.0),
        tokens_in=Lengths(1.0),
        tokens_out=Lengths(1.0),
        deadline_s=math.inf,
        stream=False,
    )
    server = EndpointSpec("server", QueueingServer(servers, 1.0, cv), FREE, capacity=1_000)
    scenario = Scenario(
        name="line",
        horizon_s=HORIZON_S,
        providers=(ProviderSpec("provider", (server,)),),
        classes=(callers,),
        warm_up_s=WARM_UP_S,
        prices=Prices("posted", tick_s=500.0),
        signals=Signals(heartbeat_s=500.0, delay_s=0.0),
        learns_limits=False,  # lines are what this is about
    )
    means = []
    for seed in SEEDS:
        done = run(scenario, seed)
        assert done.totals.count() == done.totals.count(Code.SERVED)
        means.append(done.e2e[0].mean_s - 1.0)
    return math.fsum(means) / len(means)


@pytest.mark.parametrize(
    ("rate_per_s", "servers", "tolerance"),
    [(0.7, 1, 0.12), (1.8, 3, 0.15)],
    ids=["M/M/1", "M/M/3"],
)
def test_calls_wait_as_long_as_erlang_says(
    rate_per_s: float, servers: int, tolerance: float
) -> None:
    # About three standard errors (Whitt, "Planning queueing simulations", Management Science 35,
    # 1989): the fewer have to wait, the more of them it takes to know how long.
    theory_s = waiting_s(rate_per_s, 1.0, servers)
    assert waited_s(rate_per_s, servers) == pytest.approx(theory_s, rel=tolerance)


def test_calls_that_are_all_alike_wait_half_as_long() -> None:
    """Pollaczek and Khinchine: the wait before one server is (1 + cv^2) / 2 of that of M/M/1."""
    assert waited_s(0.7, 1, cv=0.0) == pytest.approx(waiting_s(0.7, 1.0, 1) / 2.0, rel=0.12)

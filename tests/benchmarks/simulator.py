"""How many simulated calls a second of processor time, and how much memory: twenty endpoints.

    python -m tests.benchmarks.simulator [seconds of the run]

Each endpoint serves 320 calls at once, as some tens of cards do, and 3,000 calls come in a second.
`requests_per_s_scalar` decides each call by the live broker's `route` at its own moment;
`requests_per_s` is the same market slice by slice, by `route_many`. They are calls over CPU
seconds, of the best of the parts that a run is cut into, for a processor that is shared is now and
then left alone. `rss_growth_mb` is how much more memory a run ten times as long has taken at most.
The last line is one JSON object.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import replace
from itertools import pairwise

from broker.core.catalog import Band
from pricing.book import Rate
from simulations.demand import ConsumerClass, Lengths, Poisson, Shape, Value
from simulations.market import run
from simulations.measured.record import Code
from simulations.scenario import Pace, Pacing, Prices, Scenario
from simulations.supply import EndpointSpec, ProviderSpec, SharingServer

ENDPOINTS = 20
PLACES = 320
RATE_PER_S = 3_000.0
HORIZON_S = 30.0
WARM_UP_S = 5.0
PART_S = 2.0


def market(horizon_s: float) -> Scenario:
    """Twenty providers whose qualities, paces and prices differ, and two classes of callers."""
    providers = tuple(
        ProviderSpec(f"provider-{place}", (_endpoint(place),)) for place in range(ENDPOINTS)
    )
    chats = ConsumerClass(
        "chats",
        Poisson(0.8 * RATE_PER_S),
        Value(Shape.EXPONENTIAL, 6e-4),
        tokens_in=Lengths(300.0, 0.6),
        tokens_out=Lengths(100.0, 0.6),
    )
    careful = replace(chats, name="careful", arrivals=Poisson(0.2 * RATE_PER_S), quality_min=0.7)
    return Scenario("benchmark", horizon_s, providers, (chats, careful), prices=Prices("excess"))


def _endpoint(place: int) -> EndpointSpec:
    price = 400_000 + 20_000 * (place % 7)
    return EndpointSpec(
        name="chat",
        server=SharingServer(0.010 + 5e-4 * (place % 5), 5e-5, 5e-6, PLACES),
        band=Band(price // 2, price, 20 * price, 2 * price, 4 * price, 80 * price),
        capacity=PLACES,
        quality=0.66 + 0.02 * (place % 6),
        cost=Rate(price // 3, price, 0),
    )


def measure(pace: Pace, horizon_s: float) -> float:
    """Calls that ended in a second of CPU time."""
    marks: list[tuple[float, int]] = []

    def at_tick(now_s: float, ended: int) -> bool:
        if now_s >= WARM_UP_S and now_s % PART_S == 0.0:
            marks.append((time.process_time(), ended))
        return True

    done = run(replace(market(horizon_s), pacing=Pacing(pace)), 1, progress=at_tick)
    rates = [
        (after - before) / (to_s - from_s) for (from_s, before), (to_s, after) in pairwise(marks)
    ]
    served, late = done.totals.count(Code.SERVED), done.totals.count(Code.LATE)
    sys.stdout.write(
        f"{pace:8} {max(rates):9.0f} calls/s, {done.ended / done.cpu_s:9.0f} over the whole run; "
        f"{done.arrived} came, {served} served, {late} late, "
        f"utilisation {done.mean_utilisation.mean():.2f}\n"
    )
    return max(rates)


def growth_mb(horizon_s: float) -> float:
    """How much more a run of ten times the horizon takes at its peak, where tables are full."""
    pacing = Pacing(Pace.SLICES, kept_calls_max=5_000, kept_ticks_max=10)
    peaks = []
    for times in (1, 10):
        run(replace(market(times * horizon_s), pacing=pacing), 1)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024)
    sys.stdout.write(f"{peaks[0]:.1f} MB, and {peaks[1]:.1f} MB for ten times as long\n")
    return peaks[1] - peaks[0]


def main() -> None:
    """Measure, print a line for each pace and the JSON at the end."""
    horizon_s = float(sys.argv[1]) if len(sys.argv) > 1 else HORIZON_S
    figures = {
        "rss_growth_mb": round(growth_mb(horizon_s), 1),
        "requests_per_s": round(measure(Pace.SLICES, horizon_s)),
        "requests_per_s_scalar": round(measure(Pace.EVENTS, horizon_s)),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()

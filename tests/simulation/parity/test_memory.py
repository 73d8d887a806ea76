"""What a run remembers does not grow with its horizon, at either pace."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

from broker.core.catalog import Band
from simulations.demand import ConsumerClass, Lengths, Poisson, Shape, Value
from simulations.market import run
from simulations.measured.record import Code
from simulations.measured.tally import BLOCK
from simulations.scenario import Pace, Pacing, Scenario
from simulations.supply import EndpointSpec, ProviderSpec, SharingServer

SHORT_S, LONG_S = 2.0, 20.0


def scenario(rate_per_s: float, pace: Pace) -> Scenario:
    price, places = 400_000, int(rate_per_s)
    band = Band(price, price, 20 * price, price, price, 20 * price)
    server = SharingServer(c0_s=0.02, c1_s=1e-7, prefill_s=0.0, batch_max=places)
    one = ProviderSpec("one", (EndpointSpec("chat", server, band, capacity=places),))
    callers = ConsumerClass(
        "callers",
        Poisson(rate_per_s),
        Value(Shape.FIXED, 1.0, by_length=False),
        tokens_in=Lengths(100.0, 0.5),
        tokens_out=Lengths(20.0, 0.5),
        deadline_s=0.8,
    )
    pacing = Pacing(pace, kept_calls_max=500, kept_ticks_max=4)
    return Scenario("memory", LONG_S, (one,), (callers,), pacing=pacing)


def kept(of: Scenario, held: Callable[[], int]) -> tuple[int, int, int]:
    """(what is held after a short time, and after ten times as long, calls that ended between);
    the least of some ticks, for what is counted in blocks waits until one is full."""
    early: list[tuple[int, int]] = []
    late: list[tuple[int, int]] = []

    def look(now_s: float, ended: int) -> bool:
        if now_s - SHORT_S in range(4) or LONG_S - now_s in range(1, 5):
            gc.collect()
            (early if now_s < LONG_S / 2 else late).append((held(), ended))
        return True

    done = run(of, 1, progress=look)
    assert done.totals.count(Code.SERVED) > done.totals.count(Code.LATE) > 0
    return min(early)[0], min(late)[0], late[0][1] - early[-1][1]


def objects() -> int:
    """Of the broker's and the simulator's classes; rows of the tally are counted in blocks.

    Classes that are written in C may say something else than a text of their module.
    """
    rooms = ("broker.", "simulations.", "pricing.")
    return sum(str(type(each).__module__).startswith(rooms) for each in gc.get_objects())


def test_no_call_leaves_an_object_behind() -> None:
    before, after, calls = kept(scenario(200.0, Pace.EVENTS), objects)
    assert calls > 2_000
    assert before > 200
    assert after - before < 0.05 * calls


def test_no_call_leaves_a_byte_behind_in_slices() -> None:
    tracemalloc.start()
    try:
        of = scenario(3_000.0, Pace.SLICES)
        before, after, calls = kept(of, lambda: tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert calls > 8 * BLOCK
    assert after - before < 2 * calls

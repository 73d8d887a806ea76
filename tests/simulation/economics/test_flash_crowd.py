"""What a load-based price is worth where demand moves: the flash crowd, without its quiet hours.

Ten seeds of the whole scenario take a while: `broker simulate flash_crowd -c excess,shadow --seeds
10` says the same with intervals. Here one seed holds what they show.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest

from simulations.demand import Steps
from simulations.files.load import load
from simulations.fluid.yardstick import yardstick
from simulations.market import run
from simulations.measured.figures import figures
from simulations.scenario import Scenario

pytestmark = pytest.mark.timeout(300)  # of a processor that others use too

TARGET = 0.9
BEST_STATIC = 6.0
"""The multiple of the list price that makes the most welfare as a static one, found by a search."""
_QUIET_S = 1_500.0
"""So much is cut off the afternoon before the crowd."""


def cut(controller: str, list_scale: float = 1.0, *, learns_limits: bool = False) -> Scenario:
    """The scenario with its crowd, in less time; by what servers declare, if not by what is learned
    of them."""
    whole = load("flash_crowd").build(
        [("controller", controller), ("list.scale", list_scale), ("warm_up_s", 300.0)]
    )
    whole = replace(whole, learns_limits=learns_limits)
    (readers,) = whole.classes
    assert isinstance(readers.arrivals, Steps)
    moments = tuple(max(at_s - _QUIET_S, 0.0) for at_s in readers.arrivals.from_s)
    arrivals = Steps(moments, readers.arrivals.rates_per_s)
    return replace(whole, horizon_s=2_700.0, classes=(replace(readers, arrivals=arrivals),))


@lru_cache
def found(
    controller: str, list_scale: float = 1.0, *, learns_limits: bool = False
) -> dict[str, float]:
    as_written = cut("posted")
    done = run(cut(controller, list_scale, learns_limits=learns_limits), 1)
    return figures(done, as_written, yardstick(as_written))


def test_prices_by_load_reach_the_bound_where_the_best_static_price_does_not() -> None:
    by_load = found("excess")["welfare_share"]
    assert by_load >= 0.95
    assert by_load >= found("posted", BEST_STATIC)["welfare_share"] + 0.05


def test_limits_that_are_learned_cost_little_welfare_and_keep_first_tokens_near() -> None:
    """The welfare bound knows no haste: waiting costs these callers nothing, so who refuses where
    first tokens come late, as the live broker does, can only lose by it here. What is lost is lost
    in the moments in which a server is to be emptied, to learn how long answers take on it alone;
    they are short enough to be lost among who happens to be let in."""
    by_load, limited = found("excess"), found("excess", learns_limits=True)
    assert abs(by_load["welfare_share"] - limited["welfare_share"]) < 0.01
    assert limited["ttft_p95_s"] <= by_load["ttft_p95_s"]
    static = found("posted", BEST_STATIC, learns_limits=True)
    assert limited["welfare_share"] >= static["welfare_share"] + 0.05
    assert static["ttft_p50_s"] < 0.2 * found("posted", BEST_STATIC)["ttft_p50_s"]


def test_load_stands_at_its_target_while_more_is_asked_than_fits() -> None:
    assert abs(found("excess")["excess_load"] / TARGET - 1.0) <= 0.06


def test_prices_by_load_do_not_swing() -> None:
    """A loop at its limit turns twice in 2 (2 tau + 1) ticks; calls of 8 s make tau 5 or more."""
    calm = found("excess")
    assert calm["reversals_per_h"] < 0.75 * 3_600.0 / (2 * 5 + 1)
    assert calm["price_sigma"] < 0.03

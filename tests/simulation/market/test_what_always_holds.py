"""Calls and money are conserved and runs repeat, whatever goes wrong in a market."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from simulations.market import run
from simulations.measured.record import Code, Run
from simulations.scenario import Prices
from tests.simulation.market.rough import rough

CONTROLLERS = ("excess", "shadow", "revenue")


@lru_cache
def done(controller: str = "excess", seed: int = 1) -> Run:
    return run(rough(prices=Prices(controller, tick_s=2.0)), seed)


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_every_call_is_served_refused_or_failed_and_every_coin_is_somewhere(
    controller: str,
) -> None:
    of = done(controller)
    ended = {code: of.totals.count(code) for code in Code}
    assert of.arrived == of.ended + of.under_way
    assert sum(ended.values()) == of.ended
    served = ended[Code.SERVED]
    refused = sum(count for code, count in ended.items() if code.refused)
    failed = sum(count for code, count in ended.items() if code.failed)
    assert served + refused + failed == of.ended
    assert min(served, refused, failed) > 0, "or nothing went wrong"
    assert of.money.is_conserved
    assert int(of.money.earned_nanos.sum()) + of.money.taken_nanos == of.totals.charge_nanos.sum()


def test_all_that_can_go_wrong_did() -> None:
    codes = {code for code in Code if done("excess").totals.count(code)}
    assert {Code.NO_FUNDS, Code.LATE, Code.UNFIT, Code.PRICED_OUT} <= codes
    assert done("excess").totals.attempts.sum() > done("excess").totals.count(
        Code.SERVED, Code.FAILED, Code.LATE
    )


def test_a_run_repeats_bit_for_bit_and_another_seed_makes_another() -> None:
    again = run(rough(prices=Prices("excess", tick_s=2.0)), 1)
    for table in ("ticks", "demand", "calls"):
        for name, column in getattr(done("excess"), table).items():
            np.testing.assert_array_equal(column, getattr(again, table)[name], err_msg=name)
    np.testing.assert_array_equal(done("excess").totals.charge_nanos, again.totals.charge_nanos)
    assert done(seed=2).arrived != again.arrived


def test_nothing_that_is_counted_depends_on_the_warm_up_but_its_beginning() -> None:
    part = run(rough(warm_up_s=300.0), 1)
    assert part.arrived == done("excess").arrived
    assert 0 < part.totals.count() < done("excess").totals.count()

"""Slice by slice or call by call: what servers fail goes on elsewhere, or ends, alike."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from broker.core.outcome import Fault
from broker.core.requirements import Weights
from simulations.market import run
from simulations.measured.record import Code, Run
from simulations.scenario import Pace, Pacing, Prices, Scenario
from simulations.supply import Outage, ProviderSpec, SharingServer
from tests.simulation.market.rough import rough
from tests.simulation.parity.test_paces import ENDPOINTS, at_pace, market, share, sliced

TROUBLES: tuple[dict[str, Any], ...] = (
    {"outages": (Outage(15.0, 25.0), Outage(35.0, 37.0, Fault.CONNECT_FAILED, 0.2))},
    {"failures": 0.05},
    {"queue_max": 3},
)


def troubled(rate_per_s: float, *troubles: dict[str, Any], **changes: Any) -> Scenario:
    """The market of the other tests of paces, with servers that fail."""
    sound = market(rate_per_s, "posted", **changes)
    providers = list(sound.providers)
    for place, trouble in enumerate(troubles):
        (endpoint,) = providers[place].endpoints
        providers[place] = replace(providers[place], endpoints=(replace(endpoint, **trouble),))
    return replace(sound, providers=tuple(providers))


def both(rate_per_s: float, stream: bool = True) -> tuple[Run, Run]:
    return _both(rate_per_s, stream)


@lru_cache  # which takes a stream that is left out for another than the same one told
def _both(rate_per_s: float, stream: bool) -> tuple[Run, Run]:
    scenario = troubled(rate_per_s, *TROUBLES, stream=stream)
    return run(scenario, 1), sliced(scenario)


@pytest.mark.parametrize("stream", [True, False])
def test_with_room_elsewhere_calls_end_alike(stream: bool) -> None:
    events, slices = both(60.0, stream)
    assert share(events, Code.CUT) > 0.01 or not stream
    assert events.totals.attempts.sum() > 1.02 * events.totals.count(Code.SERVED)
    for code in Code:
        assert share(slices, code) == pytest.approx(share(events, code), abs=0.006), code.name
    for what in ("attempts", "charge_nanos", "take_nanos", "cost_nanos", "worth_nanos"):
        found, wanted = (getattr(each.totals, what).sum() for each in (slices, events))
        assert found == pytest.approx(wanted, rel=0.02), what
    np.testing.assert_allclose(slices.mean_utilisation, events.mean_utilisation, atol=0.04)
    for place in range(2):
        assert slices.e2e[place].mean_s == pytest.approx(events.e2e[place].mean_s, rel=0.03)


def test_where_all_are_full_as_many_are_refused_or_fail() -> None:
    """Who of them finds a breaker open or a queue full depends on single answers: one that is whole
    closes a breaker, and is told at the end of a slice."""
    events, slices = both(130.0)
    assert share(events, Code.FAILED) > 0.1
    lost = (Code.FULL, Code.FAILED)
    assert share(slices, *lost) == pytest.approx(share(events, *lost), abs=0.02)
    assert share(slices, Code.FAILED) == pytest.approx(share(events, Code.FAILED), abs=0.04)
    for code in (Code.SERVED, Code.CUT, Code.PRICED_OUT):
        assert share(slices, code) == pytest.approx(share(events, code), abs=0.012), code.name
    np.testing.assert_allclose(slices.mean_utilisation, events.mean_utilisation, atol=0.04)


@pytest.mark.parametrize("rate_per_s", [60.0, 130.0])
def test_nothing_is_lost(rate_per_s: float) -> None:
    for done in both(rate_per_s):
        assert done.money.is_conserved
        assert done.under_way == done.arrived - done.ended


def test_calls_one_by_one_go_where_the_reference_sends_them() -> None:
    """Where servers are no slower for being full, who is best is no matter of chance, and nobody
    asks in the moment between the first token of a probe and the end of its slice."""
    plain = market(90.0, weights=Weights(1.0, 0.0, 0.0, 0.0, 0.0))
    outages = (
        (Outage(5.2, 8.0),),
        (),
        (Outage(9.1, 9.6, Fault.CONNECT_FAILED, 0.01),),
    )
    providers = []
    for place in range(ENDPOINTS):
        server = SharingServer(c0_s=0.015 + 5e-4 * place, c1_s=0.0, prefill_s=0.0, batch_max=40)
        (endpoint,) = plain.providers[place].endpoints
        endpoint = replace(endpoint, server=server, quality=0.9 - 0.05 * place)
        if place < len(outages):
            endpoint = replace(endpoint, outages=outages[place])
        providers.append(ProviderSpec(f"provider-{place}", (endpoint,)))
    plain = replace(plain, providers=tuple(providers), horizon_s=15.0, warm_up_s=0.0)
    events = at_pace(plain, Pacing(Pace.EVENTS))
    slices = at_pace(plain, Pacing(Pace.SLICES, slice_s=0.01, together_max=1))
    assert {int(each) for each in events.calls["code"]} == {
        Code.SERVED,
        Code.PRICED_OUT,
        Code.CUT,
    }
    assert events.calls["attempts"].max() > 1
    for name in ("arrival_s", "code", "endpoint", "attempts"):
        np.testing.assert_array_equal(slices.calls[name], events.calls[name], name)
    # A hair's breadth decides whether a token has come before its call is cut.
    np.testing.assert_allclose(slices.calls["tokens_out"], events.calls["tokens_out"], atol=1)
    whole = events.calls["code"] != Code.CUT
    for name in ("tokens_out", "charge_nanos", "e2e_s", "ttft_s", "cost_nanos", "worth_nanos"):
        found, wanted = slices.calls[name][whole], events.calls[name][whole]
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6, err_msg=name)


def test_whatever_goes_wrong_calls_and_money_are_conserved_by_slices() -> None:
    of = run(rough(300.0, prices=Prices("excess", tick_s=2.0), pacing=Pacing(Pace.SLICES)), 1)
    assert of.arrived == of.ended + of.under_way
    assert of.totals.count() == of.ended
    assert of.money.is_conserved
    assert int(of.money.earned_nanos.sum()) + of.money.taken_nanos == of.totals.charge_nanos.sum()
    codes = {code for code in Code if of.totals.count(code)}
    assert {Code.NO_FUNDS, Code.LATE, Code.UNFIT, Code.PRICED_OUT, Code.FAILED} <= codes
    assert of.totals.attempts.sum() > of.totals.count(Code.SERVED, Code.FAILED, Code.LATE)


def test_a_seed_makes_the_same_failures() -> None:
    scenario = replace(troubled(60.0, *TROUBLES), horizon_s=20.0)
    one, two = sliced(scenario, 3), sliced(scenario, 3)
    for name, column in one.calls.items():
        np.testing.assert_array_equal(column, two.calls[name], err_msg=name)
    assert one.totals.attempts.sum() > one.totals.count(Code.SERVED)

"""Slice by slice or call by call: both paces find the same market, up to what slices leave out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from broker.core.catalog import Band
from broker.core.columns import Floats
from broker.core.requirements import Weights
from pricing.book import Rate
from pricing.tiers import Tier
from simulations.demand import ConsumerClass, Foresight, Lengths, Poisson, Shape, Value
from simulations.files.load import load, names
from simulations.market import run
from simulations.measured.record import Code, Run
from simulations.pace import pace_of, pace_told
from simulations.scenario import Pace, Pacing, Prices, Scenario, ScenarioMalformed
from simulations.supply import (
    Brownout,
    EndpointSpec,
    LieAboutTokens,
    Outage,
    ProviderSpec,
    QueueingServer,
    SharingServer,
)

HORIZON_S, WARM_UP_S = 50.0, 10.0
ENDPOINTS = 6


def market(rate_per_s: float, controller: str = "excess", **changes: Any) -> Scenario:
    """Six servers of 40 places, unlike in price, pace and quality, and two classes of callers;
    servers are limited by what is declared, if nothing else is asked for."""
    learns_limits = changes.pop("learns_limits", False)
    providers = tuple(
        ProviderSpec(f"provider-{place}", (_endpoint(place),)) for place in range(ENDPOINTS)
    )
    chats = ConsumerClass(
        "chats",
        Poisson(0.7 * rate_per_s),
        Value(Shape.EXPONENTIAL, 1.5e-3),
        tokens_in=Lengths(300.0, 0.6),
        tokens_out=Lengths(100.0, 0.6),
        delay_cost_usd_per_s=1e-5,
        quality_taste=1.0,
        deadline_s=changes.pop("deadline_s", 60.0),
    )
    careful = replace(
        chats, name="careful", arrivals=Poisson(0.3 * rate_per_s), quality_min=0.7, headroom=1.5
    )
    classes = tuple(replace(each, **changes) for each in (chats, careful))
    return Scenario(
        "paces",
        HORIZON_S,
        providers,
        classes,
        warm_up_s=WARM_UP_S,
        prices=Prices(controller),
        learns_limits=learns_limits,
    )


def _endpoint(place: int) -> EndpointSpec:
    price = 400_000 + 20_000 * place
    return EndpointSpec(
        name="chat",
        server=SharingServer(c0_s=0.01 + 5e-4 * place, c1_s=3e-4, prefill_s=3e-5, batch_max=40),
        band=Band(price // 2, price, 20 * price, 2 * price, 4 * price, 80 * price),
        capacity=40,
        quality=0.66 + 0.03 * (place % 3),
        cost=Rate(price // 3, price, 0),
        tiers_bps={Tier.FLEX: 6_000},
    )


def at_pace(scenario: Scenario, pacing: Pacing, seed: int = 1) -> Run:
    return run(replace(scenario, pacing=pacing), seed)


def sliced(scenario: Scenario, seed: int = 1) -> Run:
    return at_pace(scenario, Pacing(Pace.SLICES), seed)


def both(name: str, seed: int = 1) -> tuple[Run, Run]:
    return _both(name, seed)


@lru_cache  # which takes a seed that is left out for another than the same one told
def _both(name: str, seed: int) -> tuple[Run, Run]:
    scenario = {
        "easy": lambda: market(60.0),
        "full": lambda: market(130.0, "posted", deadline_s=8.0, patience_calls=1, patience_s=1.0),
        "limited": lambda: market(
            130.0, "posted", deadline_s=8.0, patience_calls=1, patience_s=1.0, learns_limits=True
        ),
        "wary": lambda: market(100.0, foresight=Foresight.DELAY, delay_cost_usd_per_s=2e-4),
        "poor": lambda: market(60.0, accounts=5, budget_usd=0.01, budget_period_s=20.0),
        "flex": lambda: market(100.0, "posted", tier=Tier.FLEX),
    }[name]()
    return run(scenario, seed), sliced(scenario, seed)


NAMES = ["easy", "full", "limited", "wary", "poor", "flex"]


def every(name: str) -> list[tuple[Run, Run]]:
    """Of limits that are learned hangs who is let in for many seconds, so that one run of fifty
    differs from the next by a few hundredths at either pace: of these, six."""
    return [both(name, seed) for seed in (range(1, 7) if name == "limited" else (1,))]


def means(name: str, what: Callable[[Run], ArrayLike]) -> list[Floats]:
    """What the runs have in the mean, at either pace."""
    return [
        np.mean([what(each) for each in pace], axis=0) for pace in zip(*every(name), strict=True)
    ]


def share(done: Run, *codes: Code) -> float:
    return done.totals.count(*codes) / done.totals.count()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_calls_end_alike(name: str) -> None:
    runs = every(name)
    assert all(slices.arrived == events.arrived for events, slices in runs)
    for code in Code:
        events, slices = (
            np.mean([share(each, code) for each in pace]) for pace in zip(*runs, strict=True)
        )
        assert slices == pytest.approx(events, abs=0.012), code.name


@pytest.mark.parametrize("name", NAMES)
def test_money_and_welfare_are_the_same(name: str) -> None:
    for what in ("charge_nanos", "take_nanos", "cost_nanos", "offer_nanos", "worth_nanos"):
        events, slices = (
            sum(getattr(each.totals, what).sum() for each in pace)
            for pace in zip(*every(name), strict=True)
        )
        assert slices == pytest.approx(events, rel=0.02), what


@pytest.mark.parametrize("name", NAMES)
def test_waits_and_loads_are_the_same(name: str) -> None:
    # Limits are lowered a slice sooner or later, and first tokens come late just before.
    soon, whole = (0.3, 0.1) if name == "limited" else (0.05, 0.03)
    for what, rel in (("e2e", whole), ("ttft", soon), ("tpot", 0.03)):
        events, slices = means(
            name, lambda run, what=what: [waits.mean_s for waits in getattr(run, what)]
        )
        assert slices == pytest.approx(events, rel=rel), what
    # Of one server whose limit is learned the two paces differ from run to run by 0.09 of its
    # places and a sixth of its line, as two runs at one pace do; here by three times the error of
    # the mean of six. All together they differ less.
    taken, line = (0.11, 0.2) if name == "limited" else (0.04, 0.1)
    events, slices = means(name, lambda run: run.mean_utilisation)
    np.testing.assert_allclose(slices, events, atol=taken)
    np.testing.assert_allclose(slices.mean(), events.mean(), atol=0.04)
    # Lines under overload differ as much from seed to seed, at either pace.
    events, slices = means(name, lambda run: run.mean_load)
    np.testing.assert_allclose(slices, events, rtol=line, atol=0.05)
    np.testing.assert_allclose(slices.mean(), events.mean(), rtol=0.1, atol=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_lost(name: str) -> None:
    for done in both(name):
        assert done.money.is_conserved
        assert done.totals.count() <= done.ended <= done.arrived
        assert done.under_way == done.arrived - done.ended


def test_the_cases_are_what_they_are_meant_to_be() -> None:
    assert share(both("easy")[0], Code.SERVED) > 0.8
    assert share(both("full")[0], Code.FULL) > 0.05
    assert share(both("full")[0], Code.LATE) > 0.02
    full, limited = both("full")[0], both("limited")[0]
    assert share(limited, Code.FULL) > share(full, Code.FULL)
    assert limited.ttft[0].mean_s < 0.5 * full.ttft[0].mean_s
    assert share(both("wary")[0], Code.STAYED_AWAY) > 0.1
    assert share(both("poor")[0], Code.NO_FUNDS) > 0.1
    assert share(both("flex")[0], Code.FULL) > 0.05


@pytest.mark.parametrize("deadline_s", [60.0, 4.0])
def test_calls_one_by_one_go_where_the_reference_sends_them(deadline_s: float) -> None:
    """Where servers are no slower for being full, slices leave nothing out but who is decided on
    together; and who is best is no matter of chance where quality alone counts."""
    plain = market(170.0, deadline_s=deadline_s, weights=Weights(1.0, 0.0, 0.0, 0.0, 0.0))
    providers = []
    for place in range(ENDPOINTS):
        server = SharingServer(c0_s=0.015 + 5e-4 * place, c1_s=0.0, prefill_s=0.0, batch_max=40)
        endpoint = replace(_endpoint(place), server=server, quality=0.9 - 0.05 * place)
        providers.append(ProviderSpec(f"provider-{place}", (endpoint,)))
    plain = replace(plain, providers=tuple(providers), horizon_s=15.0, warm_up_s=0.0)
    events = at_pace(plain, Pacing(Pace.EVENTS))
    slices = at_pace(plain, Pacing(Pace.SLICES, slice_s=0.05, together_max=1))
    assert {int(each) for each in events.calls["code"]} >= {Code.SERVED, Code.PRICED_OUT}
    assert set(events.calls["endpoint"].tolist()) == {-1, *range(ENDPOINTS)}
    assert share(events, Code.LATE) > 0.01 or deadline_s > 10.0
    np.testing.assert_array_equal(slices.totals.calls, events.totals.calls)
    for name in ("arrival_s", "code", "endpoint", "tokens_out", "charge_nanos", "take_nanos"):
        np.testing.assert_array_equal(slices.calls[name], events.calls[name], name)
    for name in ("e2e_s", "ttft_s", "cost_nanos", "offer_nanos", "worth_nanos"):
        found, wanted = slices.calls[name], events.calls[name]
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(slices.money.earned_nanos, events.money.earned_nanos)


def test_of_itself_a_large_market_goes_by_slices_and_no_other_does() -> None:
    large, small = market(400.0), market(60.0)
    roomy = [replace(_endpoint(place), capacity=200) for place in range(ENDPOINTS)]
    large = replace(
        large, providers=tuple(ProviderSpec(f"roomy-{x}", (each,)) for x, each in enumerate(roomy))
    )
    assert large.pacing.pace is Pace.AUTO
    assert pace_of(large) is Pace.SLICES
    assert pace_of(small) is Pace.EVENTS
    assert pace_of(replace(large, pacing=Pacing(Pace.EVENTS))) is Pace.EVENTS
    out = ProviderSpec("out", (replace(roomy[0], outages=(Outage(1.0, 2.0),)),))
    assert pace_of(replace(large, providers=(*large.providers, out))) is Pace.SLICES
    hasty = replace(large, classes=(*large.classes, replace(large.classes[0], hedge=True)))
    assert pace_of(hasty) is Pace.EVENTS
    assert "nothing of classes.2.hedge" in str(pace_told(hasty))
    assert "slices of" in str(pace_told(large))
    assert pace_told(small) is None
    assert pace_told(replace(hasty, pacing=Pacing(Pace.EVENTS))) is None
    for name in names():
        assert pace_of(load(name).build()) is Pace.EVENTS, name
        assert pace_told(load(name).build()) is None, name


def test_a_seed_makes_the_same_slices() -> None:
    scenario = replace(market(60.0), horizon_s=20.0, warm_up_s=0.0)
    one, two = sliced(scenario, 7), sliced(scenario, 7)
    for name, column in one.calls.items():
        np.testing.assert_array_equal(column, two.calls[name])
    assert sliced(scenario, 8).arrived != one.arrived


def test_brownouts_come_and_claims_are_cut_in_both() -> None:
    scenario = market(60.0)
    slow = replace(_endpoint(0), brownouts=(Brownout(30.0, 60.0, 4.0),))
    providers = (
        replace(scenario.providers[0], endpoints=(slow,)),
        replace(scenario.providers[1], strategy=LieAboutTokens(1.5)),
        *scenario.providers[2:],
    )
    scenario = replace(scenario, providers=providers)
    # Sums of one seed differ by 2 to 3 %, and over many seeds slices find 2 % less of the slow.
    seeds = (1, 2, 3)
    paces = [sliced(scenario, seed) for seed in seeds], [run(scenario, seed) for seed in seeds]
    for each in (0, 1):
        found, wanted = (
            sum(done.totals.charge_nanos[:, each].sum() for done in runs) for runs in paces
        )
        assert found == pytest.approx(wanted, rel=0.04)


def test_what_slices_cannot_tell_is_refused_with_its_place() -> None:
    scenario = market(1.0)
    provider = ProviderSpec("odd", (replace(_endpoint(0), server=QueueingServer()),))
    scenario = replace(scenario, providers=(*scenario.providers, provider))
    with pytest.raises(ScenarioMalformed) as told:
        sliced(scenario)
    assert told.value.field == f"providers.{ENDPOINTS}.endpoints.0.server"


@pytest.mark.parametrize("change", [{"foresight": Foresight.QUEUE}, {"hedge": True}])
def test_callers_whose_calls_are_looked_at_under_way_are_refused_by_slices(
    change: dict[str, Any],
) -> None:
    with pytest.raises(ScenarioMalformed) as told:
        sliced(market(1.0, deadline_s=math.inf, **change))
    assert told.value.field == f"classes.0.{next(iter(change))}"

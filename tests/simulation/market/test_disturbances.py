"""What disturbs a market does in a run what its name says: outages, delays, tiers, lies, entry."""

from __future__ import annotations

import numpy as np
import pytest

from pricing.tiers import Tier
from simulations.demand import Poisson
from simulations.market import run
from simulations.measured.record import Code, Run
from simulations.scenario import Prices, Scenario, Signals
from simulations.supply import (
    Brownout,
    EndpointSpec,
    LieAboutLoad,
    LieAboutTokens,
    Outage,
    ProviderSpec,
    Strategy,
)
from tests.simulation.market.rough import callers, endpoint

HORIZON_S = 300.0


def market(*endpoints: EndpointSpec, strategy: Strategy | None = None, **more: object) -> Scenario:
    """Each endpoint has a provider of its own; the first of them has the strategy."""
    providers = tuple(
        ProviderSpec(f"p{place}", (each,))
        if strategy is None or place
        else ProviderSpec(f"p{place}", (each,), strategy)
        for place, each in enumerate(endpoints)
    )
    given: dict[str, object] = {"classes": (callers("all", arrivals=Poisson(1.5)),)} | more
    return Scenario("small", HORIZON_S, providers, **given)  # type: ignore[arg-type]


def served_at(done: Run, number: int, from_s: float, to_s: float) -> int:
    calls = done.calls
    inside = (calls["arrival_s"] >= from_s) & (calls["arrival_s"] < to_s)
    return int((inside & (calls["code"] == Code.SERVED) & (calls["endpoint"] == number)).sum())


def test_nobody_is_served_where_there_is_an_outage_and_all_others_go_elsewhere() -> None:
    done = run(market(endpoint("a", outages=(Outage(100.0, 200.0),)), endpoint("b")), 1)
    assert served_at(done, 0, 110.0, 195.0) == 0
    assert min(served_at(done, 0, 0.0, 95.0), served_at(done, 0, 205.0, 300.0)) > 0
    assert served_at(done, 1, 110.0, 195.0) > served_at(done, 1, 0.0, 85.0)


def test_a_brownout_takes_so_many_times_as_long() -> None:
    done = run(market(endpoint("a", capacity=32, brownouts=(Brownout(150.0, 290.0, 3.0),))), 1)
    calls = done.calls
    served = calls["code"] == Code.SERVED
    slow = (calls["arrival_s"] > 160.0) & (calls["arrival_s"] < 270.0)
    before = calls["e2e_s"][served & (calls["arrival_s"] < 140.0)].mean()
    assert calls["e2e_s"][served & slow].mean() > 2.0 * before


def test_who_enters_late_and_leaves_early_serves_in_between_only() -> None:
    done = run(market(endpoint("a"), endpoint("b", enters_s=100.0, exits_s=200.0)), 1)
    assert served_at(done, 1, 0.0, 99.0) == served_at(done, 1, 201.0, 300.0) == 0
    assert served_at(done, 1, 100.0, 200.0) > 0
    assert done.present_s[1] == pytest.approx(100.0, abs=2.0)


def test_prices_follow_late_where_signals_do() -> None:
    def risen_s(delay_s: float) -> float:
        """When a price that was told first differs from the list price, as calls pay it."""
        crowd = (callers("all", arrivals=Poisson(8.0)),)
        of = market(
            endpoint("a"),
            classes=crowd,
            signals=Signals(delay_s=delay_s),
            prices=Prices(tick_s=1.0),
        )
        calls = run(of, 1).calls
        paid = calls["code"] == Code.SERVED
        tokens = 30_000 * calls["tokens_in"][paid] + 120_000 * calls["tokens_out"][paid]
        over = calls["charge_nanos"][paid] * 1e3 / tokens
        return float(calls["arrival_s"][paid][np.abs(over - 1.0) > 0.02][0])

    assert risen_s(30.0) > risen_s(0.1) + 20.0


def test_a_market_whose_heartbeats_are_all_lost_is_taken_for_down() -> None:
    done = run(market(endpoint("a"), signals=Signals(heartbeat_s=5.0, loss=1.0)), 1)
    assert served_at(done, 0, 100.0, HORIZON_S) == 0
    assert done.totals.count(Code.AWAY) > 0


def test_flex_is_cheaper_but_gives_way_and_is_refused_where_it_is_not_sold() -> None:
    classes = (
        callers("standard", arrivals=Poisson(1.5)),
        callers("waiting", arrivals=Poisson(1.5), tier=Tier.FLEX),
    )
    sold = run(
        market(
            endpoint("a", tiers_bps={Tier.FLEX: 5_000}), classes=classes, prices=Prices("posted")
        ),
        1,
    )
    calls, served = sold.calls, sold.calls["code"] == Code.SERVED

    def a_token(place: int) -> float:
        mine = served & (calls["consumer_class"] == place)
        tokens = calls["tokens_in"][mine] + 4 * calls["tokens_out"][mine]
        return float(calls["charge_nanos"][mine].sum() / tokens.sum())

    assert a_token(1) == pytest.approx(0.5 * a_token(0), rel=1e-3)
    full = sold.totals.calls[:, :, Code.FULL].sum(axis=1)
    assert full[1] > full[0]
    unsold = run(market(endpoint("a"), classes=classes), 1)
    assert unsold.totals.calls[1, :, Code.UNFIT].sum() == unsold.totals.calls[1].sum() > 0


def test_who_exaggerates_its_load_moves_its_own_price_by_a_little_at_most() -> None:
    def price(strategy: Strategy | None) -> float:
        quiet = (callers("all", arrivals=Poisson(0.2)),)
        prices = Prices(parameters={"target": 0.7})
        done = run(market(endpoint("a"), classes=quiet, strategy=strategy, prices=prices), 1)
        return float(done.ticks["price_out_micros"][-1])

    assert price(LieAboutLoad(10.0, 50)) < 1.02 * 120_000
    assert price(None) <= price(LieAboutLoad(10.0, 50))


def test_tokens_that_were_not_made_are_paid_up_to_a_bound_and_no_further() -> None:
    def paid(multiple: float) -> float:
        strategy = LieAboutTokens(multiple) if multiple != 1.0 else None
        done = run(market(endpoint("a"), strategy=strategy, prices=Prices("posted")), 1)
        return float(done.totals.tokens_out.sum() / done.totals.count(Code.SERVED))

    honest = paid(1.0)
    assert paid(1.25) <= 1.25 * honest * 1.001
    assert paid(100.0) < 8.0 * honest


def test_failed_attempts_go_to_the_next_provider_that_has_room() -> None:
    quiet = (callers("all", arrivals=Poisson(0.3)),)
    done = run(market(endpoint("a", failures=1.0), endpoint("b"), classes=quiet), 1)
    assert served_at(done, 0, 0.0, HORIZON_S) == 0
    failed, served = done.totals.count(Code.FAILED), done.totals.count(Code.SERVED)
    assert failed < 0.05 * served, "but for the first, before there is a budget of retries"
    assert done.totals.attempts.sum() > served + failed, "some tried the first"

"""What a model name means, what is preferred, and how calls spread over those near the best."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.candidates.eligibility import Rejection
from broker.core.candidates.scoring import PARTS, UNNOTICED_MS
from broker.core.candidates.view import RoutingLimits
from broker.core.catalog import Task
from broker.core.health.pulse import Pulse
from broker.core.market import Market
from broker.core.requirements import PRESETS, Weights
from broker.core.routing import route
from pricing.book import Rate
from pricing.money import charge_nanos
from tests.fakes import decide, endpoint, market, planned, pulse, requirements


def first(where: Market, live: Pulse | None = None, **demands: object) -> int:
    return decide(where, live, **demands).plan[0].number


def winners(where: Market, live: Pulse | None = None, **demands: Any) -> Counter[int]:
    """How often each endpoint comes first, over one stream of chance."""
    random, wanted, live = Random(7), requirements(**demands), live or pulse(where)
    counts: Counter[int] = Counter()
    for _ in range(2_000):
        decision = route(wanted, where, live, RoutingLimits(), (random, 0.0))
        assert decision is not None
        counts[decision.plan[0].number] += 1
    return counts


class TestWorth:
    """Who says what a good answer is worth pays for quality up to that, and no further."""

    where = market(
        [
            endpoint(0, "acme/fair", quality=0.7, rate=Rate(100_000, 100_000, 0)),
            endpoint(1, "acme/best", quality=0.9, rate=Rate(9_000_000, 9_000_000, 0)),
        ]
    )

    @pytest.mark.parametrize(("usd", "winner"), [(1.0, 1), (0.1, 1), (0.005, 0), (1e-5, 0)])
    def test_the_dear_endpoint_is_taken_where_its_better_answers_are_worth_it(
        self, usd: float, winner: int
    ) -> None:
        assert first(self.where, value_nanos=round(usd * 1e9)) == winner

    def test_the_score_is_the_worth_of_the_answer_less_its_cost_and_lateness(self) -> None:
        live = pulse(self.where)
        live.ttft_ms[1] = 20_000.0
        decision = decide(self.where, live, value_nanos=10_000_000)
        place = decision.eligible.tolist().index(1)
        cost = decision.costs_picos[place] / 1e10
        assert decision.scores[place] == pytest.approx(0.9 - cost - 0.1, abs=1e-3)

    def test_what_nobody_would_pay_is_still_ranked(self) -> None:
        decision = decide(self.where, value_nanos=1)
        assert planned(decision) == [0, 1]
        assert decision.scores.min() >= -2.0
        assert planned(decide(self.where, value_nanos=1, providers_order=("acme",))) == [0, 1]


class TestNames:
    where = market(
        [
            endpoint(0, "acme/small"),
            endpoint(1, "zeta/small", version="2"),
            endpoint(2, "acme/large", model="large"),
            endpoint(3, "acme/vectors", model="vectors", tasks=[Task.EMBEDDING]),
        ]
    )

    def test_auto_means_every_endpoint_of_the_task(self) -> None:
        assert set(planned(decide(self.where, model="auto"))) == {0, 1, 2}

    def test_a_family_means_all_that_serve_the_model(self) -> None:
        assert set(planned(decide(self.where, model="small"))) == {0, 1}

    def test_a_full_name_means_that_endpoint_alone(self) -> None:
        assert planned(decide(self.where, model="zeta/small")) == [1]

    def test_a_version_narrows_a_family(self) -> None:
        assert planned(decide(self.where, model="small", version="2")) == [1]

    @pytest.mark.parametrize("model", ["vectors", "medium", "acme/medium", "acme"])
    def test_a_name_that_nobody_serves_for_the_task_has_no_decision(self, model: str) -> None:
        wanted = requirements(model=model)
        chance = (Random(1), 0.0)
        assert route(wanted, self.where, pulse(self.where), RoutingLimits(), chance) is None


class TestPreference:
    def test_a_specialist_beats_a_generalist_in_its_domain(self) -> None:
        where = market([endpoint(0), endpoint(1, domains={"law": 0.5})])
        assert first(where, domain="law") == 1

    def test_a_generalist_beats_the_specialist_of_another_domain(self) -> None:
        where = market([endpoint(0), endpoint(1, domains={"medicine": 0.5})])
        assert first(where, domain="law") == 0

    def test_without_a_domain_the_generalist_is_preferred_when_the_rest_is_equal(self) -> None:
        where = market([endpoint(0, domains={"law": 0.5}), endpoint(1)])
        assert first(where) == 1

    def test_quality_declared_for_the_domain_counts_there_and_nowhere_else(self) -> None:
        where = market(
            [
                endpoint(0, quality=0.9, domains={"law": 0.2}),
                endpoint(1, quality=0.2, domains={"law": 0.9}),
            ]
        )
        assert first(where, domain="law") == 1
        assert first(where) == 0

    def test_quality_min_is_measured_in_the_domain_that_is_asked_for(self) -> None:
        where = market([endpoint(0, quality=0.9, domains={"law": 0.2})])
        decision = decide(where, domain="law", quality_min=0.5)
        assert decision.reasons.tolist() == [Rejection.QUALITY_TOO_LOW]

    @pytest.mark.parametrize(
        ("preset", "chosen"), [("quality", 0), ("cheap", 1), ("fast", 2), ("balanced", 1)]
    )
    def test_a_preset_prefers_what_it_is_named_for(self, preset: str, chosen: int) -> None:
        where = market(
            [
                endpoint(0, quality=1.0, rate=Rate(10**6, 10**6, 0)),
                endpoint(1, quality=0.5, rate=Rate(10**5, 10**5, 0)),
                endpoint(2, quality=0.5, rate=Rate(10**6, 10**6, 0)),
            ]
        )
        live = pulse(where)
        live.ttft_ms[:], live.tpot_ms[:] = 500.0, 20.0
        live.ttft_ms[2], live.tpot_ms[2] = 100.0, 4.0
        assert first(where, live, weights=PRESETS[preset]) == chosen

    def test_an_untried_endpoint_is_tried_beside_its_measured_twin(self) -> None:
        where = market([endpoint(0), endpoint(1)])
        live = pulse(where)
        live.ttft_ms[0], live.tpot_ms[0] = 5.0, 1.0
        assert first(where, live) == 1

    @pytest.mark.parametrize("size", [4, 30])
    @pytest.mark.parametrize("preset", PRESETS)
    def test_equals_a_tenth_of_a_millisecond_apart_share_the_calls(
        self, preset: str, size: int
    ) -> None:
        where = market([endpoint(number) for number in range(size)])
        live = pulse(where)
        live.ttft_ms[:size], live.tpot_ms[:size] = 1.0 + 0.1 * np.arange(size), 0.01
        went = winners(where, live, weights=PRESETS[preset])
        assert min(went[number] for number in range(size)) > 0.5 * went.total() / size

    @pytest.mark.parametrize("size", [4, 30])
    @pytest.mark.parametrize(("soonest_ms", "alike_ms"), [(1.0, UNNOTICED_MS), (500.0, 500.0)])
    def test_who_is_so_much_later_that_it_may_be_noticed_counts_as_later(
        self, soonest_ms: float, alike_ms: float, size: int
    ) -> None:
        where = market([endpoint(number) for number in range(size)])
        live = pulse(where)
        live.ttft_ms[:size], live.tpot_ms[:size] = alike_ms, 0.0
        live.ttft_ms[1:3] = soonest_ms, 2 * alike_ms
        decision = decide(where, live, weights=PRESETS["fast"])
        assert decision.parts[PARTS.index("latency"), :4].tolist() == [1.0, 1.0, 0.5, 1.0]
        assert winners(where, live, weights=PRESETS["fast"]).keys() == {*range(size)} - {2}

    def test_only_the_part_that_has_weight_counts(self) -> None:
        where = market([endpoint(0, quality=0.1), endpoint(1, quality=0.9)])
        live = pulse(where)
        live.availability[1] = 0.1
        assert first(where, live, weights=Weights(1, 0, 0, 0, 0)) == 1
        assert first(where, live, weights=Weights(0, 0, 0, 0, 1)) == 0

    def test_weights_are_relative(self) -> None:
        where = market([endpoint(0, quality=0.9), endpoint(1, rate=Rate(10**4, 10**4, 0))])
        one = decide(where, weights=Weights(1, 2, 3, 4, 5))
        ten = decide(where, weights=Weights(10, 20, 30, 40, 50))
        assert one.scores.tolist() == pytest.approx(ten.scores.tolist())

    def test_weights_that_are_all_zero_still_decide(self) -> None:
        decision = decide(market([endpoint(0), endpoint(1)]), weights=Weights(0, 0, 0, 0, 0))
        assert decision.scores.tolist() == [0.0, 0.0]

    def test_the_order_of_providers_goes_before_the_score(self) -> None:
        names = ["acme/a", "zeta/a", "zeta/b", "nova/a"]
        qualities = [0.9, 0.2, 0.4, 0.1]
        members = [
            endpoint(number, name, quality=quality)
            for number, (name, quality) in enumerate(zip(names, qualities, strict=True))
        ]
        decision = decide(market(members), providers_order=("nova", "zeta"))
        assert planned(decision) == [3, 2, 1, 0]

    def test_scores_are_the_weighted_parts(self) -> None:
        where = market([endpoint(0, quality=0.2), endpoint(1, quality=0.9)])
        decision = decide(where, weights=Weights(3, 0, 0, 0, 1))
        assert planned(decision) == [1, 0]
        assert decision.eligible.tolist() == [0, 1]
        assert decision.parts[0].tolist() == [0.2, 0.9]
        assert decision.scores.tolist() == pytest.approx([(0.6 + 1) / 4, (2.7 + 1) / 4])

    def test_the_expected_cost_is_that_of_this_call(self) -> None:
        decision = decide(market([endpoint(0)]))
        # 100 tokens in at 500 nano-dollars and 100 out at 1,500.
        assert decision.costs_picos.tolist() == [200_000_000.0]

    def test_a_call_price_counts_beside_the_tokens(self) -> None:
        where = market([endpoint(0, tasks=[Task.INFER], rate=Rate(0, 0, 5_000))])
        decision = decide(
            where, task=Task.INFER, tokens_in_bound=0, tokens_in_expected=0, tokens_out_max=None
        )
        assert decision.costs_picos.tolist() == [5_000_000.0]
        assert decision.hold_nanos == 5_000


class TestStaying:
    """Of a conversation whose context one endpoint has."""

    where = market([endpoint(0, quality=0.8), endpoint(1, quality=0.7), endpoint(2, quality=0.1)])

    def test_it_stays_with_one_that_is_a_little_worse_than_the_best(self) -> None:
        assert first(self.where) == 0
        assert planned(decide(self.where, home=1)) == [1, 0, 2]

    def test_it_leaves_one_that_is_much_worse_than_the_best(self) -> None:
        assert first(self.where, home=2) == 0

    def test_it_leaves_one_that_may_not_serve_it(self) -> None:
        assert first(self.where, home=1, quality_min=0.75) == 0
        assert first(self.where, home=77) == 0

    def test_it_leaves_one_that_has_become_busy(self) -> None:
        live = pulse(self.where)
        assert first(self.where, live, home=1) == 1
        live.others_in_flight[1] = 9
        assert first(self.where, live, home=1) == 0

    def test_it_stays_too_where_no_answer_is_worth_its_cost(self) -> None:
        alike = market([endpoint(number, rate=Rate(10**6, 10**6, 0)) for number in range(2)])
        decision = decide(alike, home=1, value_nanos=100_000)
        assert decision.scores.max() < 0.0
        assert planned(decision)[0] == 1

    def test_the_callers_own_order_goes_before_it(self) -> None:
        members = [endpoint(0, "acme/a"), endpoint(1, "zeta/a")]
        assert first(market(members), home=1, providers_order=("acme",)) == 0


class TestSpreading:
    def test_calls_spread_over_the_near_best_in_proportion_to_free_capacity(self) -> None:
        where = market([endpoint(0, deployment={"capacity": 30}), endpoint(1)])
        counts = winners(where)
        assert 0.71 < counts[0] / counts.total() < 0.79

    def test_a_busy_endpoint_among_the_near_best_gets_less(self) -> None:
        where = market([endpoint(0), endpoint(1)])
        live = pulse(where)
        # A quarter in flight leaves its score as it is, and three quarters of its share.
        live.others_in_flight[1] = 2
        counts = winners(where, live)
        assert 0.52 < counts[0] / counts.total() < 0.60

    def test_one_that_is_clearly_worse_never_comes_first(self) -> None:
        where = market([endpoint(0), endpoint(1, quality=0.2)])
        assert set(winners(where)) == {0}

    def test_the_same_seed_decides_the_same(self) -> None:
        where = market([endpoint(number) for number in range(20)])
        rankings = [planned(decide(where, seed=3)) for _ in range(3)]
        assert rankings[0] == rankings[1] == rankings[2]
        others = {tuple(planned(decide(where, seed=seed))) for seed in range(20)}
        assert len(others) > 1

    def test_only_the_first_place_is_drawn(self) -> None:
        where = market([endpoint(number, quality=0.5 + number / 1_000) for number in range(5)])
        for seed in range(20):
            ranking = planned(decide(where, seed=seed))
            assert sorted(ranking[1:], reverse=True) == ranking[1:]

    def test_own_calls_in_flight_count_at_once(self) -> None:
        where = market([endpoint(0), endpoint(1)])
        live = pulse(where)
        for _ in range(10):
            chosen = first(where, live)
            live.begin(chosen, chosen, 0.0)
        assert live.in_flight[:2].min() >= 3
        assert live.in_flight[:2].sum() == 10

    def test_a_server_has_its_share_however_many_endpoints_are_on_it(self) -> None:
        crowd = [endpoint(number, deployment={"number": 0}) for number in range(30)]
        counts = winners(market([*crowd, endpoint(30)]))
        assert 0.45 < counts[30] / counts.total() < 0.55
        few = winners(market([*crowd[:6], endpoint(30)]))
        assert 0.45 < few[30] / few.total() < 0.55

    @pytest.mark.parametrize("size", [6, 30])
    def test_a_plan_has_no_more_than_two_of_a_server_while_others_are_left(self, size: int) -> None:
        crowd = [endpoint(number, deployment={"number": 0}) for number in range(size)]
        others = [endpoint(size, quality=0.3), endpoint(size + 1, quality=0.2)]
        ranking = planned(decide(market([*crowd, *others])))
        assert max(ranking[:2]) < size
        assert ranking[2:] == [size, size + 1]
        ranking = planned(decide(market([*crowd, others[0]])))
        assert ranking.index(size) == 2
        assert len(ranking) == 4

    def test_the_callers_own_order_of_providers_goes_before_that(self) -> None:
        crowd = [endpoint(at, f"acme/c{at}", deployment={"number": 0}) for at in range(6)]
        where = market([*crowd, endpoint(6, "zeta/a")])
        ranking = planned(decide(where, providers_order=("acme",)))
        assert 6 not in ranking

    def test_of_two_endpoints_on_one_deployment_both_feel_its_load(self) -> None:
        shared = endpoint(0).deployment
        twins = [endpoint(0), endpoint(1, "acme/twin", deployment={"number": 0, "id": shared.id})]
        where = market([*twins, endpoint(2)])
        live = pulse(where)
        for _ in range(9):
            live.begin(0, 0, 0.0)
        assert first(where, live) == 2


RATES = st.builds(
    Rate, st.integers(0, 10**7), st.integers(0, 10**7), st.sampled_from([0, 0, 1, 10**6])
)
MEMBERS = st.builds(
    lambda **made: made,
    rate=RATES,
    quality=st.floats(0, 1),
    domains=st.sampled_from([None, {"law": 0.9}, {"medicine": 0.4}]),
    context_length_tokens=st.sampled_from([None, 150, 500, 8_192]),
    max_output_tokens=st.sampled_from([None, 50, 2_048]),
    deployment=st.builds(
        lambda **made: made,
        capacity=st.integers(1, 50),
        region=st.sampled_from(["eu", "us"]),
        retains_data=st.booleans(),
        provider=st.sampled_from(["acme", "zeta"]),
    ),
)
DEMANDS = st.builds(
    lambda **made: made,
    tokens_out_max=st.sampled_from([None, 1, 100, 1_000]),
    choices=st.integers(1, 4),
    domain=st.sampled_from([None, "law", "space"]),
    quality_min=st.sampled_from([None, 0.3]),
    regions=st.sampled_from([None, frozenset({"eu"})]),
    allow_retention=st.booleans(),
    max_rate_in_micros=st.sampled_from([None, 10**6]),
    max_cost_nanos=st.sampled_from([None, 10**6]),
    providers_ignore=st.sampled_from([frozenset(), frozenset({"zeta"})]),
    weights=st.sampled_from(list(PRESETS.values())),
)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.lists(MEMBERS, min_size=1, max_size=8), DEMANDS, st.lists(st.integers(0, 120)))
def test_whoever_is_planned_passes_every_filter_and_cannot_cost_more_than_the_hold(
    members: list[dict[str, object]], demands: dict[str, object], loads: list[int]
) -> None:
    where = market([endpoint(number, **made) for number, made in enumerate(members)])
    live = pulse(where)
    for number, load in enumerate(loads[: len(members)]):
        live.others_in_flight[number] = load
    wanted = requirements(**demands)
    decision = route(wanted, where, live, RoutingLimits(), (Random(1), 0.0))
    assert decision is not None

    everyone = decision.eligible.tolist() + decision.rejected.tolist()
    assert sorted(everyone) == list(range(len(members)))
    assert set(planned(decision)) <= set(decision.eligible.tolist())
    assert len(set(planned(decision))) == len(decision.plan) == min(decision.eligible.size, 4)
    for each in decision.plan:
        member = where.endpoint(each.number)
        server = member.deployment
        quality = member.domains.get(wanted.domain or "", member.quality)
        assert wanted.quality_min is None or quality >= wanted.quality_min
        assert wanted.regions is None or server.region in wanted.regions
        assert wanted.allow_retention or not server.retains_data
        assert server.provider not in wanted.providers_ignore
        rate_max = wanted.max_rate_in_micros
        assert rate_max is None or each.rate.rate_in_micros <= rate_max
        assert wanted.max_cost_nanos is None or each.ceiling_nanos <= wanted.max_cost_nanos
        assert 1 <= each.tokens_out_max <= (wanted.tokens_out_max or 4_096)
        assert each.tokens_out_max <= (member.max_output_tokens or 10**9)
        assert live.others_in_flight[each.number] < 2 * server.capacity
        most = charge_nanos(each.rate.picos(464, wanted.choices * each.tokens_out_max))
        assert 0 < each.ceiling_nanos == most <= decision.hold_nanos


@settings(deadline=None, derandomize=True)
@given(RATES, st.integers(0, 464), st.integers(0, 400), st.integers(1, 4))
def test_no_usage_within_the_bounds_is_charged_above_the_ceiling(
    rate: Rate, tokens_in: int, tokens_out: int, choices: int
) -> None:
    if rate == Rate(0, 0, 0):
        return
    candidate = decide(market([endpoint(0, rate=rate)]), choices=choices).plan[0]
    paid = charge_nanos(rate.picos(tokens_in, min(tokens_out, choices * candidate.tokens_out_max)))
    assert paid <= candidate.ceiling_nanos

"""Every hard filter, its reason, and what an account must not even hear of."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from broker.core.candidates.eligibility import SHORTLISTS_MAX, Rejection, shortlist
from broker.core.candidates.scoring import typical_picos
from broker.core.candidates.view import RoutingLimits
from broker.core.catalog import Task
from broker.core.decision import Decision
from broker.core.health.pulse import Pulse
from broker.core.market import Market, Presence
from broker.core.outcome import Fault, Outcome
from broker.core.routing import route
from pricing.book import Rate
from pricing.tiers import Tier
from tests.fakes import (
    ACCOUNT,
    OTHER_ACCOUNT,
    RATE,
    decide,
    endpoint,
    market,
    pulse,
    requirements,
)

FAILED = Outcome(Fault.SERVER_ERROR, status=500)
UNPRICED = Rate(0, 0, 0)


def reasons(decision: Decision) -> dict[int, str]:
    """Why each rejected endpoint was rejected, by number."""
    pairs = zip(decision.rejected.tolist(), decision.reasons.tolist(), strict=True)
    return {number: Rejection(reason).name for number, reason in pairs}


def eligible(decision: Decision) -> set[int]:
    return set(decision.eligible.tolist())


def eject(live: Pulse, number: int, now_s: float = 0.0) -> None:
    """Let an endpoint fail until its breaker opens."""
    while number not in live.doubts.ejected_here(now_s):
        live.begin(number, number, now_s)
        live.end(number, number, FAILED, now_s, None)


def occupy(live: Pulse, number: int, calls: int) -> None:
    for _ in range(calls):
        live.begin(number, number, 0.0)


TERMS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("UNPRICED", {"rate": UNPRICED}, {}),
    ("PROVIDER_EXCLUDED", {"name": "zeta/small"}, {"providers_only": frozenset({"acme"})}),
    ("PROVIDER_EXCLUDED", {"name": "zeta/small"}, {"providers_ignore": frozenset({"zeta"})}),
    ("VERSION", {"version": "2"}, {"version": "1"}),
    ("CONTEXT_TOO_SHORT", {"context_length_tokens": 150}, {}),
    ("OUTPUT_TOO_SHORT", {"max_output_tokens": 99}, {}),
    ("REGION", {"deployment": {"region": "us"}}, {"regions": frozenset({"eu", "uk"})}),
    ("RETAINS_DATA", {"deployment": {"retains_data": True}}, {"allow_retention": False}),
    ("TRAINS_ON_DATA", {"deployment": {"trains_on_data": True}}, {"allow_training": False}),
    ("QUALITY_TOO_LOW", {"quality": 0.39}, {"quality_min": 0.4}),
    ("RATE_TOO_HIGH", {"rate": Rate(500_001, 1, 0)}, {"max_rate_in_micros": 500_000}),
    ("RATE_TOO_HIGH", {"rate": Rate(1, 1_500_001, 0)}, {"max_rate_out_micros": 1_500_000}),
    # 464 tokens in at 0.5 and 100 out at 1.5 micro-dollars are 382,000 nano-dollars.
    ("COST_TOO_HIGH", {"rate": Rate(500_001, 1_500_000, 0)}, {"max_cost_nanos": 382_000}),
]
MANY = 40
"""Are decided about in arrays, and not in plain numbers."""


@pytest.mark.parametrize("size", [2, MANY])
@pytest.mark.parametrize(("reason", "unfit", "demands"), TERMS)
def test_an_endpoint_that_breaks_a_demand_is_rejected_with_the_reason(
    reason: str, unfit: dict[str, Any], demands: dict[str, Any], size: int
) -> None:
    where = market(endpoint(at, **(unfit if at == 1 else {})) for at in range(size))
    decision = decide(where, **demands)
    assert reasons(decision) == {1: reason}
    assert eligible(decision) == {*range(size)} - {1}
    assert reasons(decide(market([endpoint(1, **unfit)]), **demands)) == {1: reason}


@pytest.mark.parametrize("size", [1, 2, MANY])
@pytest.mark.parametrize(("reason", "unfit", "demands"), TERMS)
def test_what_just_meets_the_demands_is_not_rejected(
    reason: str, unfit: dict[str, Any], demands: dict[str, Any], size: int
) -> None:
    terms: dict[str, Any] = {
        "quality": 0.4,
        "max_output_tokens": 100,
        "context_length_tokens": 200,
    }
    # One is worse, or all would be seen to meet them at a glance.
    worse = endpoint(MANY, **terms | unfit)
    fit = [endpoint(at, **terms, rate=RATE) for at in range(size)]
    assert reasons(decide(market([*fit, worse]), **demands)) == {MANY: reason}
    assert reasons(decide(market(fit), **demands)) == {}


@pytest.mark.parametrize("presence", [Presence.DRAINING, Presence.DOWN])
def test_an_endpoint_whose_agent_is_draining_or_away_is_not_called(presence: Presence) -> None:
    where = market([endpoint(0), endpoint(1)], {1: presence})
    assert reasons(decide(where)) == {1: "NOT_PRESENT"}


@pytest.mark.parametrize("size", [1, 2, MANY])
def test_an_endpoint_that_cannot_answer_in_time_is_too_slow(size: int) -> None:
    where = market(endpoint(at) for at in range(size))
    live, late = pulse(where), size - 1
    live.ttft_ms[:], live.tpot_ms[:] = 500.0, 20.0
    # 500 ms and 100 tokens of 20 ms are 2,500 ms.
    assert reasons(decide(where, live, latency_ms_max=2_500.0)) == {}
    live.ttft_ms[late] = 501.0
    assert reasons(decide(where, live, latency_ms_max=2_500.0)) == {late: "TOO_SLOW"}


def test_an_endpoint_that_fails_again_and_again_is_ejected() -> None:
    where = market([endpoint(0), endpoint(1)])
    live = pulse(where)
    eject(live, 1)
    assert reasons(decide(where, live)) == {1: "EJECTED"}


def test_an_endpoint_that_another_process_ejected_is_ejected_here() -> None:
    where = market([endpoint(0), endpoint(1)])
    live = pulse(where)
    live.doubts.elsewhere = frozenset({1})
    assert reasons(decide(where, live)) == {1: "EJECTED"}


def test_when_everything_is_ejected_everything_is_tried() -> None:
    where = market([endpoint(0), endpoint(1)])
    live = pulse(where)
    eject(live, 0)
    eject(live, 1)
    assert eligible(decide(where, live)) == {0, 1}


def test_when_all_that_the_terms_leave_is_ejected_it_is_tried() -> None:
    where = market([endpoint(0), endpoint(1, quality=0.1)])
    live = pulse(where)
    eject(live, 0)
    decision = decide(where, live, quality_min=0.4)
    assert eligible(decision) == {0}
    assert reasons(decision) == {1: "QUALITY_TOO_LOW"}


def test_when_all_that_an_account_may_see_is_ejected_it_is_tried() -> None:
    where = market([endpoint(0), endpoint(1, visible_to=[OTHER_ACCOUNT])])
    live = pulse(where)
    eject(live, 0)
    assert eligible(decide(where, live)) == {0}


def test_a_deployment_with_capacity_times_the_queue_factor_in_flight_is_full() -> None:
    where = market([endpoint(0), endpoint(1, deployment={"capacity": 2})])
    live = pulse(where)
    occupy(live, 1, 3)
    assert reasons(decide(where, live, limits=RoutingLimits(queue_factor=2.0))) == {}
    occupy(live, 1, 1)
    assert reasons(decide(where, live, limits=RoutingLimits(queue_factor=2.0))) == {1: "FULL"}


@pytest.mark.parametrize("size", [1, 2, MANY])
def test_an_endpoint_is_full_with_as_many_under_way_as_it_was_learned_to_manage(size: int) -> None:
    where = market(endpoint(at) for at in range(size))
    live = pulse(where)
    live.set_limit(0, 3.0)
    occupy(live, 0, 2)
    assert reasons(decide(where, live)) == {}
    occupy(live, 0, 1)
    assert reasons(decide(where, live)) == {0: "FULL"}
    live.set_limit(0, np.inf)
    occupy(live, 0, 16)
    assert reasons(decide(where, live)) == {}
    occupy(live, 0, 1)
    assert reasons(decide(where, live)) == {0: "FULL"}, "twice of what is declared"


def test_the_first_reason_in_the_order_of_the_filters_is_the_one_told() -> None:
    unfit = endpoint(1, quality=0.1, deployment={"region": "us", "retains_data": True})
    where = market([endpoint(0), unfit])
    live = pulse(where)
    occupy(live, 1, 100)
    demands = {"regions": frozenset({"eu"}), "allow_retention": False, "quality_min": 0.4}
    assert reasons(decide(where, live, **demands)) == {1: "REGION"}


@pytest.mark.parametrize("size", [1, 3, MANY])
def test_without_a_limit_of_its_own_a_call_fits_wherever_its_prompt_does(size: int) -> None:
    room = {"context_length_tokens": 600, "max_output_tokens": None}
    where = market(endpoint(at, **room) for at in range(size))
    decision = decide(where, tokens_out_max=None)
    # The prompt may be twice as long as expected, and a template comes on top;
    assert decision.plan[0].tokens_out_max == 600 - (2 * 100 + 64)
    # but it has no more tokens than bytes.
    decision = decide(where, tokens_out_max=None, tokens_in_bound=150)
    assert decision.plan[0].tokens_out_max == 600 - 150


@pytest.mark.parametrize("endpoints", [1, 3, 40])
def test_of_a_list_of_texts_each_has_a_context_of_its_own(endpoints: int) -> None:
    several = [endpoint(number, context_length_tokens=512) for number in range(endpoints)]
    where = market(several)
    asked = {"tokens_in_expected": 4_000, "tokens_in_bound": 16_000, "tokens_out_max": 12}
    assert len(decide(where, tokens_in_longest=500, **asked).plan) == min(endpoints, 4)
    for longest in (None, 501):
        refused = reasons(decide(where, tokens_in_longest=longest, **asked))
        assert set(refused.values()) == {"CONTEXT_TOO_SHORT"}
    roomy = decide(where, tokens_in_longest=100, **asked | {"tokens_out_max": None})
    assert roomy.plan[0].tokens_out_max == 512 - (2 * 100 + 64)


@pytest.mark.parametrize("model", ["small", "auto", "zeta/secret"])
def test_a_private_endpoint_is_never_named_to_others(model: str) -> None:
    secret = endpoint(1, "zeta/secret", visible_to=[OTHER_ACCOUNT])
    where = market([endpoint(0), secret])
    if model == "zeta/secret":
        assert _decided(where, model) is None
        return
    decision = decide(where, model=model)
    assert eligible(decision) == {0}
    assert reasons(decision) == {}


@pytest.mark.parametrize("model", ["small", "auto", "zeta/secret"])
def test_a_private_endpoint_is_there_for_the_accounts_it_lists(model: str) -> None:
    where = market([endpoint(1, "zeta/secret", visible_to=[ACCOUNT, OTHER_ACCOUNT])])
    assert eligible(decide(where, model=model)) == {1}


def test_a_private_endpoint_that_breaks_a_demand_is_not_named_either() -> None:
    where = market([endpoint(0), endpoint(1, quality=0.1, visible_to=[OTHER_ACCOUNT])])
    assert reasons(decide(where, quality_min=0.4)) == {}


@pytest.mark.parametrize(
    ("task", "rate"),
    [
        (Task.EMBEDDING, Rate(0, 1_000_000, 0)),
        (Task.INFER, Rate(1_000_000, 1_000_000, 0)),
    ],
)
def test_an_endpoint_whose_price_would_make_the_task_free_is_unpriced(
    task: Task, rate: Rate
) -> None:
    free = endpoint(0, tasks=[task], rate=rate)
    priced = endpoint(1, tasks=[task], rate=Rate(0, 0, 1_000))
    infers = task is Task.INFER
    tokens = {"tokens_in_bound": 0, "tokens_in_expected": 0} if infers else {}
    decision = decide(market([free, priced]), task=task, tokens_out_max=None, **tokens)
    assert reasons(decision) == {0: "UNPRICED"}
    assert eligible(decision) == {1}


@pytest.mark.parametrize("size", [1, 3, MANY])
@pytest.mark.parametrize("rate", [Rate(1, 0, 0), Rate(0, 1, 0), Rate(0, 0, 1)])
def test_whoever_is_paid_for_anything_that_a_chat_counts_is_priced(rate: Rate, size: int) -> None:
    where = market(endpoint(at, rate=rate) for at in range(size))
    assert eligible(decide(where)) == {*range(size)}


@pytest.mark.parametrize("size", [3, MANY])
def test_of_some_who_are_paid_by_the_call_and_some_by_the_token_each_costs_what_it_does(
    size: int,
) -> None:
    by_call, by_token = Rate(0, 0, 300_000), RATE
    where = market(endpoint(at, rate=by_token if at else by_call) for at in range(size))
    # 100 tokens in at 0.5 and 100 out at 1.5 micro-dollars are 200 micro-dollars.
    assert decide(where).costs_picos.tolist() == [300e6] + [200e6] * (size - 1)
    # As the bounds go, 232 and 150.
    assert reasons(decide(where, max_cost_nanos=300_000)) == dict.fromkeys(
        range(1, size), "COST_TOO_HIGH"
    )
    assert reasons(decide(where, max_cost_nanos=382_000)) == {}


@pytest.mark.parametrize("size", [2, MANY])
def test_without_a_domain_the_generalist_fits_and_in_one_that_it_does_not_claim_by_half(
    size: int,
) -> None:
    where = market(endpoint(at, domains={} if at else {"law": 0.9}) for at in range(size))

    def fits(domain: str | None) -> list[float]:
        return decide(where, domain=domain).parts[1].tolist()

    others = size - 1
    assert fits(None) == [0.5] + [1.0] * others
    assert fits("law") == [1.0] + [0.5] * others
    assert fits("medicine") == [0.0] + [0.5] * others


def test_a_key_for_some_domains_alone_leaves_out_specialists_in_others() -> None:
    where = market([endpoint(0), endpoint(1, domains={"law": 0.9}), endpoint(2, domains={"hr": 1})])
    decision = decide(where, domains_only=frozenset({"hr"}))
    assert reasons(decision) == {1: "DOMAIN_NOT_ALLOWED"}
    assert eligible(decision) == {0, 2}


@pytest.mark.parametrize("size", [1, 3, MANY])
def test_a_call_costs_at_typical_rates_what_it_does_at_the_middle_ones(size: int) -> None:
    members = [
        endpoint(at, rate=Rate(1_000 + at, 2_000 + 2 * at, 3_000 + 3 * at)) for at in range(size)
    ]
    wanted = requirements(tokens_in_expected=7, choices=3)
    listed = shortlist(wanted, market(members))
    assert listed is not None
    middle = (size - 1) / 2
    assert typical_picos(wanted, listed, 11.0) == pytest.approx(
        7 * (1_000 + middle) + 3 * 11 * (2_000 + 2 * middle) + 1_000 * (3_000 + 3 * middle)
    )


def test_of_what_is_remembered_lists_of_one_are_forgotten_first_and_then_all() -> None:
    where = market(endpoint(at, f"acme/{at}") for at in range(3))

    def asked(model: str, rate: int) -> None:
        shortlist(requirements(model=model, max_rate_in_micros=rate), where)

    def remembered() -> list[int]:
        return sorted({each.numbers.size for each in where.shortlists.values() if each})

    half = SHORTLISTS_MAX // 2
    for rate in range(half):
        asked("small", 10**6 + rate)
    where.fronts["one of them"] = None
    for rate in range(half + 1):
        asked("acme/1", 10**6 + rate)
    assert (remembered(), len(where.shortlists)) == ([1, 3], half + 1)
    assert where.fronts
    asked("small", 1)  # nobody is as cheap
    for rate in range(half - 1):
        asked("acme/1", 10**6 + rate)
    assert (remembered(), len(where.shortlists)) == ([1], 1)
    assert not where.fronts, "nor is what goes with the lists"


def test_no_name_that_nobody_has_is_taken_for_another_where_there_are_private_ones() -> None:
    where = market([endpoint(0), endpoint(1, "zeta/secret", visible_to=[OTHER_ACCOUNT])])
    assert _decided(where, "zeta/nobody") is None


def _decided(where: Market, model: str) -> Decision | None:
    chance = (Random(1), 0.0)
    return route(requirements(model=model), where, pulse(where), RoutingLimits(), chance)


@pytest.mark.parametrize(
    "demand", [{}, {"max_cost_nanos": 1}, {"latency_ms_max": 1.0}, {"tier": Tier.PRIORITY}]
)
def test_where_the_terms_leave_nobody_all_are_told_and_nobody_is_planned(
    demand: dict[str, Any],
) -> None:
    decision = decide(market([endpoint(0), endpoint(1)]), regions=frozenset({"mars"}), **demand)
    assert set(reasons(decision)) == {0, 1}
    assert decision.plan == ()

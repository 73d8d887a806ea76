"""A plan in stages gives up who is too dear before a call is refused for what it may cost."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from broker.core.candidates.view import RoutingLimits
from broker.core.cascade import Cascade, Stage
from broker.core.chain import Chain
from broker.core.decision import Candidate, nobody
from broker.core.requirements import PRESETS
from broker.core.story import CANDIDATES_KEPT_MAX, thin
from broker.errors import NothingFits
from broker.flows.calls.decide import choose
from broker.flows.calls.plan_cascade import plan_cascade, within
from pricing.book import Rate
from tests.fakes import endpoint, market, planned, pulse, requirements

_NONE = np.empty(0, dtype=np.int64)
_RATE = Rate(1, 1, 0)


def chain(*stages: tuple[int, ...], samples: bool = False) -> Chain:
    """A plan whose candidates may cost so many nano-dollars, by stage."""
    ceilings = [(at, each) for at, stage in enumerate(stages) for each in stage]
    told = nobody(_NONE, _NONE, 1)
    return Chain(
        tuple(Candidate(at, _RATE, 9, nanos) for at, (_, nanos) in enumerate(ceilings)),
        *(told.eligible, told.figures, told.rejected, told.reasons, told.price_version),
        by_place=tuple(stage for stage, _ in ceilings),
        keep_from=(0.9,) * (len(stages) - 1) + (0.0,),
        samples=samples,
    )


def costs(plan: Chain) -> list[list[int]]:
    return [[each.ceiling_nanos for each in group] for group in plan.groups]


@pytest.mark.parametrize(
    ("most", "left"),
    [
        (None, [[60, 90, 10], [50, 40, 70]]),
        (160, [[60, 90, 10], [50, 40, 70]]),
        (159, [[60, 10], [50, 40, 70]]),
        (129, [[60, 10], [50, 40]]),
        (109, [[10], [50, 40]]),
        (59, [[10], [40]]),
        (50, [[10], [40]]),
    ],
)
def test_the_dearest_go_one_by_one_and_who_comes_first_in_its_stage_last(
    most: int | None, left: list[list[int]]
) -> None:
    assert costs(within(chain((60, 90, 10), (50, 40, 70)), most)) == left


def test_the_cheaper_spare_answers_where_who_comes_first_does_not_fit() -> None:
    plan = within(chain((90, 10), (50,)), 100)
    assert costs(plan) == [[10], [50]]
    assert plan.hold_nanos == 60
    twice = within(chain((90, 10), (50,), samples=True), 70)
    assert twice.hold_nanos == 70


def test_a_plan_is_refused_where_the_cheapest_of_each_stage_cost_too_much() -> None:
    with pytest.raises(NothingFits, match="together") as refused:
        within(chain((60, 90, 10), (50, 40, 70)), 49)
    assert refused.value.code == "nothing_within_price"


def test_of_very_many_a_plan_in_stages_has_those_that_are_told_and_says_how_many_more() -> None:
    listed = [
        endpoint(number, model="small" if number < 300 else "large", quality=0.2 + number / 1_000)
        for number in range(500)
    ]
    where: Any = SimpleNamespace(
        market=market(listed),
        routing=RoutingLimits(),
        random=Random(1),
        now_s=lambda: 0.0,
    )
    where.pulse = pulse(where.market)
    stages = (Stage("small", 0.9), Stage("auto", 0.0))
    cascade = Cascade(stages)
    wanted = requirements(model="small")
    first = choose(wanted, where)
    _, plan = plan_cascade(cascade, wanted, first, where)
    assert plan.groups[0] == first.plan
    assert {each.number for each in plan.plan} <= {*plan.eligible.tolist()}
    assert CANDIDATES_KEPT_MAX < plan.eligible.size <= 2 * CANDIDATES_KEPT_MAX
    assert plan.eligible.size + plan.left_out == 500
    for each in plan.plan:
        assert plan.quality_and_cost(each)[0] == pytest.approx(0.2 + each.number / 1_000, abs=1e-6)
    told = thin(plan)
    assert (told.eligible.size, told.left_out) == (CANDIDATES_KEPT_MAX, 500 - CANDIDATES_KEPT_MAX)


def test_the_best_of_whoever_is_left_answers_second_where_no_models_are_named() -> None:
    named = [("one", 0.9), ("two", 0.5), ("three", 0.7), ("one", 0.8)]
    where: Any = SimpleNamespace(
        market=market([endpoint(at, model=each, quality=q) for at, (each, q) in enumerate(named)]),
        routing=RoutingLimits(),
        random=Random(1),
        now_s=lambda: 0.0,
    )
    where.pulse = pulse(where.market)
    wanted = requirements(model="auto", weights=PRESETS["quality"])
    first = choose(wanted, where)
    assert planned(first)[0] == 0
    _, plan = plan_cascade(Cascade(), wanted, first, where)
    assert [[one.number for one in each] for each in plan.groups] == [[0, 3], [2]]

"""A plan in stages gives up who is too dear before a call is refused for what it may cost."""

from __future__ import annotations

import numpy as np
import pytest

from broker.core.chain import Chain
from broker.core.decision import Candidate, nobody
from broker.errors import NothingFits
from broker.flows.calls.plan_cascade import within
from pricing.book import Rate

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

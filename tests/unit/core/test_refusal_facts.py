"""What a refusal tells of very many endpoints is what asking one after the other would tell."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from broker.core.candidates.view import RoutingLimits
from broker.core.market import Market
from broker.core.requirements import Requirements
from broker.errors import NothingFits, TooManyCalls
from broker.flows.calls.decide import choose, refusal, room_in_s
from pricing.book import Rate
from pricing.money import format_usd
from tests.fakes import endpoint, market, pulse, requirements


def runtime(where: Market) -> Any:
    return SimpleNamespace(
        market=where,
        pulse=pulse(where),
        routing=RoutingLimits(),
        random=Random(1),
        now_s=lambda: 0.0,
    )


def refused(wanted: Requirements, at: Any) -> Any:
    return refusal(wanted, choose(wanted, at), at)


@pytest.mark.parametrize("seed", range(8))
def test_the_cheapest_that_else_fits_is_told_however_many_there_are(seed: int) -> None:
    lots = Random(seed)
    listed = [
        endpoint(
            number,
            f"acme/e{number}",
            rate=Rate(*(lots.randrange(1, 10**6) for _ in range(2)), lots.randrange(10**4)),
            max_output_tokens=lots.choice((None, 50, 900)),
            quality=lots.uniform(0.3, 0.9),
            context_length_tokens=lots.choice((4_096, 65_536)),
        )
        for number in range(300)
    ]
    at = runtime(market(listed))
    terms = {"tokens_out_max": lots.choice((None, 700)), "quality_min": 0.5}
    error = refused(requirements(model="auto", max_cost_nanos=1, **terms), at)
    assert isinstance(error, NothingFits)
    assert error.code == "nothing_within_price"
    one_by_one = {
        each.name: choose(requirements(model=each.name, **terms), at).plan for each in listed
    }
    ceilings = {name: plan[0].ceiling_nanos for name, plan in one_by_one.items() if plan}
    assert 10 < len(ceilings) < 300
    told = error.facts["cheapest"]
    assert told["ceiling_cost_usd"] == format_usd(min(ceilings.values()))
    assert ceilings[told["endpoint"]] == min(ceilings.values())


def test_the_longest_context_and_the_longest_answer_are_told() -> None:
    listed = [
        endpoint(
            number,
            context_length_tokens=8_192 * (1 + number % 3),
            max_output_tokens=100 * (1 + number % 5),
        )
        for number in range(30)
    ]
    at = runtime(market(listed))
    long = refused(requirements(tokens_in_bound=10**6, tokens_in_expected=10**5), at)
    assert "maximum context length is 24,576 tokens" in long.detail
    much = refused(requirements(tokens_out_max=501), at)
    assert "The longest answer is 500 tokens." in much.detail


def test_who_finds_all_full_is_told_when_the_first_has_a_place() -> None:
    at = runtime(market([endpoint(number) for number in range(3)]))
    capacity = at.market.columns.capacity.tolist()
    most = [int(each * at.routing.queue_factor) for each in capacity]
    for number, calls in enumerate(most):
        at.pulse.in_flight[number] = calls + 4 * number
    at.pulse.service_s[:3] = 40.0, 12.0, 3.0
    error = refused(requirements(), at)
    assert isinstance(error, TooManyCalls)
    assert at.pulse.refused[:3].tolist() == [1, 1, 1]
    by_hand = [
        each * (1 + 4 * number) / capacity[number] for number, each in enumerate((40.0, 12.0, 3.0))
    ]
    soonest = max(min(by_hand), 1.0)
    assert soonest <= room_in_s(np.arange(3), at) <= 1.5 * soonest
    assert error.retry_after_s is not None
    assert soonest <= error.retry_after_s <= 1.5 * soonest

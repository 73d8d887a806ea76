"""Many calls are decided about as `route` does about each, on the same counts."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.candidates.view import RoutingLimits
from broker.core.decision import Decision
from broker.core.health.measured import Measured
from broker.core.health.pulse import Pulse
from broker.core.many.crowd import NO_LIMIT, Asked, Crowd
from broker.core.many.grid import build_grid
from broker.core.many.routing import NOBODY, Decisions, route_many, terms
from broker.core.market import Market, Presence
from broker.core.outcome import DELIVERED, Fault, Outcome
from broker.core.requirements import PRESETS, Requirements
from broker.core.routing import route
from pricing.book import Rate
from pricing.tiers import Tier
from tests.fakes import endpoint, market, pulse, requirements

LIMITS = RoutingLimits()
NOW_S = 100.0


class Fixed(Random):
    """Draws what it was told to."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def random(self) -> float:
        return self.value


@dataclass
class Scene:
    """A market in some state, kinds of calls, and calls of these kinds."""

    market: Market
    pulse: Pulse
    kinds: list[Requirements]
    calls: list[Requirements]
    asked: Asked


def scene(seed: int, *, endpoints: int, calls: int, crowded: bool = False) -> Scene:
    """A scene by chance. Rates are such that scores tie only where endpoints are the same."""
    random = Random(seed)
    on_one = random.choice([1, 1, 2, 5])
    listed = [_endpoint(number, random, on_one) for number in range(endpoints)]
    where = market(listed, presence={0: Presence.DOWN} if random.random() < 0.2 else {})
    live = _pulse(where, random, crowded)
    kinds = [_kind(random) for _ in range(random.randint(1, 4))]
    rows = [random.randrange(len(kinds)) for _ in range(calls)]
    many = [_call(kinds[row], random) for row in rows]
    return Scene(where, live, kinds, many, _asked(rows, many, random))


def _endpoint(number: int, random: Random, on_one: int) -> Any:
    twin = random.random() < 0.3
    own, server = Random(number // 2) if twin else random, Random(number // on_one)
    return endpoint(
        number,
        f"provider-{number % 3}/endpoint-{number}",
        model=own.choice(["small", "small", "large"]),
        quality=own.uniform(0.3, 0.9),
        rate=Rate(own.randint(10**5, 10**6), own.randint(10**5, 10**7), own.choice([0, 0, 5_000])),
        domains={"law": 0.9} if own.random() < 0.3 else None,
        context_length_tokens=own.choice([None, 2_000, 8_192]),
        max_output_tokens=own.choice([None, 300, 4_096]),
        tiers=own.choice([{}, {Tier.FLEX: 5_000}, {Tier.FLEX: 5_000, Tier.PRIORITY: 20_000}]),
        deployment={
            "number": number - number % on_one,
            "capacity": server.choice([1, 8, 64]),
            "region": server.choice(["eu", "us"]),
        },
    )


def _pulse(where: Market, random: Random, crowded: bool) -> Pulse:
    live, pace = pulse(where), random.choice([1.0, 0.002])
    for each in where.endpoints:
        assert each is not None
        server = each.deployment
        most = 2.5 if crowded else 0.7
        for _ in range(random.randint(0, int(most * server.capacity))):
            live.begin(each.number, server.number, 0.0)
        live.others_in_flight[server.number] = random.randint(0, 2)
        for _ in range(random.randint(0, 2)):
            live.begin(each.number, server.number, 0.0)
            first_ms, all_ms = pace * random.uniform(10, 900), pace * random.uniform(900, 9_000)
            seen = Measured(first_ms, all_ms, 100)
            live.end(each.number, server.number, DELIVERED, NOW_S - 1.0, seen)
        for _ in range(random.choice([0, 0, 0, 1, 5])):
            live.begin(each.number, server.number, 0.0)
            live.end(each.number, server.number, Outcome(Fault.RESET), NOW_S - 0.5, None)
        if crowded and random.random() < 0.2:
            live.set_limit(each.number, random.uniform(1.0, server.capacity))
    return live


def _kind(random: Random) -> Requirements:
    return requirements(
        model=random.choice(["auto", "small", "large", "provider-1/endpoint-1", "none"]),
        domain=random.choice([None, "law"]),
        tier=random.choice([Tier.STANDARD, Tier.STANDARD, Tier.FLEX, Tier.PRIORITY]),
        quality_min=random.choice([None, 0.5]),
        latency_ms_max=random.choice([None, None, 3_000.0]),
        choices=random.choice([1, 1, 3]),
        regions=random.choice([None, frozenset({"eu"})]),
        providers_order=random.choice([(), (), ("provider-2", "provider-0")]),
        weights=random.choice(list(PRESETS.values())),
    )


def _call(kind: Requirements, random: Random) -> Requirements:
    expected = random.randint(1, 3_000)
    return msgspec.structs.replace(
        kind,
        tokens_in_expected=expected,
        tokens_in_bound=4 * expected + 64,
        tokens_in_longest=random.choice([None, None, random.randint(1, expected)]),
        tokens_out_max=random.choice([None, 50, random.randint(1, 5_000)]),
        max_cost_nanos=random.choice([None, random.randint(1, 10**7)]),
    )


def _asked(rows: list[int], calls: list[Requirements], random: Random) -> Asked:
    costs = [np.inf if each.max_cost_nanos is None else each.max_cost_nanos for each in calls]
    limits = [NO_LIMIT if x.tokens_out_max is None else x.tokens_out_max for x in calls]
    return Asked(
        kind=np.array(rows, dtype=np.int64),
        tokens_in_bound=np.array([each.tokens_in_bound for each in calls], dtype=np.int64),
        tokens_in_expected=np.array([each.tokens_in_expected for each in calls], dtype=np.int64),
        tokens_in_context=np.array([each.tokens_in_context for each in calls], dtype=np.int64),
        tokens_out_max=np.array(limits, dtype=np.int64),
        max_cost_nanos=np.array(costs, dtype=np.float64),
        chance=np.array([random.random() for _ in calls]),
    )


def decide_alone(at: Scene, place: int) -> Decision | None:
    chance = Fixed(at.asked.chance[place])
    return route(at.calls[place], at.market, at.pulse, LIMITS, (chance, NOW_S))


def assert_same(many: Decisions, row: int, alone: Decision | None) -> None:
    """Both say who is to be tried, in which order, on what terms, or why nobody is."""
    numbers = many.crowd.grid.numbers
    plan = [numbers[each] for each in many.plan(LIMITS.attempts_max)[row] if each != NOBODY]
    if alone is None or not alone.plan:
        assert not plan
        assert many.first[row] == NOBODY
        reasons = many.reasons()[many.refused.tolist().index(row)].tolist()
        told = {number: each for number, each in zip(numbers, reasons, strict=True) if each}
        rejected = () if alone is None else zip(alone.rejected, alone.reasons, strict=True)
        assert told == dict(rejected)
        return
    assert row not in many.refused
    assert plan[0] == numbers[many.first[row]] == alone.plan[0].number
    scores = dict(zip(alone.eligible.tolist(), alone.scores.tolist(), strict=True))
    for number, candidate in zip(plan, alone.plan, strict=True):
        # Of twins either may come first.
        assert scores[number] == pytest.approx(scores[candidate.number], rel=1e-12)


def assert_same_terms(crowd: Crowd, plan: np.ndarray, alone: list[Decision | None]) -> None:
    found = terms(crowd, plan)
    for row, decision in enumerate(alone):
        candidates = () if decision is None else decision.plan
        known = {each.number: each for each in candidates}
        for place in range(plan.shape[1]):
            number = int(found.numbers[row, place])
            told = (int(found.tokens_out_max[row, place]), int(found.ceiling_nanos[row, place]))
            if number in known:
                assert told == (known[number].tokens_out_max, known[number].ceiling_nanos)
            elif number == NOBODY:
                assert told == (0, 0)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    endpoints=st.integers(1, 9),
    calls=st.integers(0, 40),
    together=st.integers(1, 40),
    crowded=st.booleans(),
)
def test_many_calls_are_decided_about_as_each_alone(
    seed: int, endpoints: int, calls: int, together: int, crowded: bool
) -> None:
    at = scene(seed, endpoints=endpoints, calls=calls, crowded=crowded)
    grid = build_grid(at.kinds, at.market)
    crowd = Crowd(at.asked, grid, at.pulse, LIMITS, NOW_S)
    plans, alone = [np.zeros((0, LIMITS.attempts_max), dtype=np.int64)], []
    for begin in range(0, calls, together):
        part = slice(begin, min(begin + together, calls))
        many = route_many(crowd, part)
        for row in range(part.stop - begin):
            alone.append(decide_alone(at, begin + row))
            assert_same(many, row, alone[-1])
        plans.append(many.plan(LIMITS.attempts_max))
        # The next part finds the places of this one taken.
        chosen = many.first[many.first != NOBODY]
        at.pulse.begin_many(grid.deployments[grid.servers[chosen]])
    assert_same_terms(crowd, np.concatenate(plans), alone)


def test_an_endpoint_with_a_model_that_nobody_has_refuses_without_reasons() -> None:
    where = market([endpoint()])
    kinds = [requirements(model="none"), requirements()]
    random = Random(1)
    calls = [_call(each, random) for each in kinds]
    grid = build_grid(kinds, where)
    many = route_many(Crowd(_asked([0, 1], calls, random), grid, pulse(where), LIMITS, NOW_S))
    assert grid.exists.tolist() == [False, True]
    assert many.refused[0] == 0
    assert not many.reasons()[0].any()


def test_calls_whose_answers_have_a_value_are_for_route_alone() -> None:
    with pytest.raises(AssertionError):
        build_grid([requirements(value_nanos=1_000)], market([endpoint()]))
    with pytest.raises(AssertionError):
        build_grid([requirements(home=0)], market([endpoint()]))

"""The decision among a few endpoints in plain numbers is the decision in arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.candidates.eligibility import Rejection, shortlist
from broker.core.catalog import Endpoint, Task
from broker.core.handful import HANDFUL_MAX, Workings
from broker.core.health.measured import Measured, MeasuredMany
from broker.core.health.pulse import Pulse
from broker.core.market import Market
from broker.core.outcome import DELIVERED, Fault, Outcome
from broker.core.requirements import PRESETS, Weights
from pricing.book import Rate
from pricing.tiers import BPS, Tier
from tests.fakes import decide, endpoint, market, pulse, requirements
from tests.unit.core.ranking.test_lone import assert_same

weights = st.sampled_from(list(PRESETS.values())) | st.builds(Weights, *[st.floats(0, 10)] * 5)
demands = st.fixed_dictionaries(
    {
        "tokens_in_bound": st.integers(64, 40_000),
        "tokens_in_expected": st.integers(1, 10_000),
        "tokens_out_max": st.none() | st.integers(1, 5_000),
        "choices": st.integers(1, 4),
        "domain": st.sampled_from([None, "law", "medicine"]),
        "max_cost_nanos": st.none() | st.integers(1, 10**7),
        "quality_min": st.none() | st.floats(0.3, 0.7),
        "tier": st.sampled_from([Tier.STANDARD, Tier.PRIORITY, Tier.FLEX]),
        "weights": weights,
    }
)
scenes = st.integers(0, 2**32)


def in_arrays(where: Market, **asked: Any) -> Market:
    """The same market, in which the shortlist of a few hides that it is one."""
    other = replace(where, shortlists={}, rates={})
    shortlist(requirements(**asked), other)
    for key, listed in other.shortlists.items():
        assert listed is not None
        other.shortlists[key] = replace(listed, few=None)
    return other


def scene(seed: int) -> tuple[Market, Pulse]:
    """A few endpoints and how they are, by chance; some are alike, some are full, some are on one
    server."""
    random = Random(seed)
    on_one = random.choice([1, 1, 2, 9])
    listed = [
        endpoint(
            number,
            quality=random.choice([0.4, 0.6, random.random()]),
            rate=Rate(random.choice([0, 500_000]), random.randrange(10**5, 10**7), 1),
            domains={"law": 0.9} if random.random() < 0.3 else None,
            tiers={Tier.PRIORITY: 2 * BPS, Tier.FLEX: BPS // 2} if random.random() < 0.7 else {},
            deployment={
                "number": number - number % on_one,
                "capacity": Random(number // on_one).choice([5, 10]),
            },
        )
        for number in random.sample(range(40), random.randint(2, HANDFUL_MAX))
    ]
    where = market(listed)
    live = pulse(where)
    busy, pace = random.choice([0, 3, 25]), random.choice([1.0, 0.002])
    for each in listed:
        number = each.number
        live.ttft_ms[number] = pace * random.uniform(1, 500)
        live.tpot_ms[number] = pace * random.uniform(1, 50)
        live.availability[number] = random.choice([1.0, random.random()])
        live.in_flight[each.deployment.number] = random.randint(0, busy)
    return where, live


@given(asked=demands, seed=scenes)
def test_a_few_endpoints_are_decided_about_alike_in_numbers_and_in_arrays(
    asked: dict[str, Any], seed: int
) -> None:
    where, live = scene(seed)
    arrays = in_arrays(where, **asked)
    for draw in range(3):  # what is remembered of the first serves the others
        plain = decide(where, live, seed=draw, **asked)
        assert_same(plain, decide(arrays, live, seed=draw, **asked))


@given(seed=scenes)
def test_what_has_happened_since_the_last_decision_among_a_few_is_known_at_the_next(
    seed: int,
) -> None:
    where, live = scene(seed)
    live.in_flight[:] = 0
    asked = {"max_cost_nanos": 10**6, "quality_min": 0.3}
    arrays, random = in_arrays(where, **asked), Random(seed)
    listed = [each for each in where.endpoints if each is not None]
    for draw in range(8):
        for _ in range(random.choice([0, 1, 3, 60])):
            happen(live, random.choice(listed), random)
        plain = decide(where, live, seed=draw, **asked)
        assert_same(plain, decide(arrays, live, seed=draw, **asked))


def test_each_call_that_comes_or_goes_is_known_at_the_next_decision_among_a_few() -> None:
    where = market([endpoint(number, deployment={"capacity": 2}) for number in range(3)])
    arrays, live = in_arrays(where), pulse(where)
    seen = Measured(1.0, 1.0, 1)
    many = MeasuredMany(np.ones(2), np.ones(2), np.ones(2, dtype=np.int64))
    steps: list[Callable[[], object]] = [
        *(lambda: live.expect(0, 1), lambda: live.expect(0, -1)),
        *[lambda: live.begin(0, 0, 0.0)] * 3,
        lambda: live.begin(0, 1, 0.0),
        lambda: live.end(0, 1, DELIVERED, 0.0, seen),
        *[lambda: live.end(0, 0, DELIVERED, 0.0, seen)] * 2,
        lambda: live.take_others(np.array([0, 0, 2]), frozenset()),
        lambda: live.take_others(np.array([1]), frozenset()),
        lambda: live.contradict(1, 0.0),
        lambda: live.begin_many(np.array([2, 2])),
        lambda: live.end_many(np.array([2, 2]), np.array([2, 2]), many, 0.0),
    ]
    for step in steps:
        step()
        assert_same(decide(where, live), decide(arrays, live))


def happen(live: Pulse, one: Endpoint, random: Random) -> None:
    """Let something happen that leaves the decision to plain numbers."""
    number, server = one.number, one.deployment.number
    match random.randrange(5):
        case 0:
            live.begin(number, server, 0.0)
        case 1 if live.in_flight[server]:
            seen = Measured(random.uniform(1, 500), random.uniform(500, 9_000), 100)
            live.end(number, server, DELIVERED, 0.0, seen)
        case 2:
            live.expect(server, 1)
        case 3:
            live.take_others(live.others_in_flight + random.randint(0, 2), frozenset())
        case 4:
            live.begin_many(np.array([server, server]))
            live.recover(1.0)


def test_what_an_endpoint_missed_is_known_at_the_next_decision_among_a_few() -> None:
    where = market([endpoint(number) for number in range(3)])
    arrays, live = in_arrays(where), pulse(where)
    for now_s in range(2):  # one more, and it would be ejected
        live.begin(1, 1, now_s)
        live.end(1, 1, Outcome(Fault.RESET), now_s, None)
        for _ in range(2):
            assert not live.is_wary
            assert_same(decide(where, live), decide(arrays, live))
            live.recover(now_s + 0.5)


@pytest.mark.parametrize(
    "asked",
    [
        {"value_nanos": 10**6},
        {"latency_ms_max": 50.0},
        {"providers_order": ("acme",)},
        {"home": 1},
        {"tokens_out_max": 2_100},
        {"tokens_in_expected": 8_150, "tokens_out_max": 100},
        {"tokens_in_expected": 90_000, "tokens_in_longest": 10_000, "tokens_out_max": 100},
        {"tokens_in_expected": 90_000, "tokens_in_longest": 100, "tokens_out_max": None},
        {"task": Task.EMBEDDING, "tokens_out_max": None},
    ],
)
def test_what_is_rarely_asked_for_is_decided_about_as_in_arrays(asked: dict[str, Any]) -> None:
    where = market(
        [
            endpoint(
                number,
                rate=Rate(10**6 + number, 10**6, 0),
                tasks=[Task.CHAT, Task.EMBEDDING],
                context_length_tokens=8_192 * (1 + number),
                max_output_tokens=2_048 * (1 + number),
            )
            for number in range(3)
        ]
    )
    assert_same(decide(where, **asked), decide(in_arrays(where, **asked), **asked))


def test_breakers_are_heard_among_a_few() -> None:
    where = market([endpoint(number) for number in range(3)])
    live = pulse(where)
    for _ in range(20):
        live.begin(1, 1, 0.0)
        live.end(1, 1, Outcome(Fault.RESET), 0.0, None)
    decision = decide(where, live)
    assert decision.rejected.tolist() == [1]
    assert decision.reasons.tolist() == [Rejection.EJECTED]


def test_while_others_are_in_doubt_or_limited_the_numbers_are_used_for_a_few_that_are_not() -> None:
    where = market([endpoint(number, model=f"family-{number % 2}") for number in range(6)])
    live = pulse(where)
    live.suspect(1, 0.0)
    live.take_others(np.zeros(0, dtype=np.int64), frozenset({3}))
    live.set_limit(5, 0.0)
    decision = decide(where, live, model="family-0")
    assert decision.eligible.tolist() == [0, 2, 4]
    assert isinstance(decision.figures, Workings)


@given(asked=demands, seed=scenes)
def test_whoever_is_in_doubt_or_limited_a_few_are_decided_about_as_in_arrays(
    asked: dict[str, Any], seed: int
) -> None:
    where, live = scene(seed)
    arrays, random = in_arrays(where, **asked), Random(seed)
    listed = [each for each in where.endpoints if each is not None]
    now_s = 0.0
    for draw in range(6):
        # Of whom nobody asks, too: endpoints that came just now, or are of another model.
        doubt(live, random.choice([*listed, endpoint(99)]), now_s, random)
        now_s += random.choice([0.0, 0.6, 2.0])
        plain = decide(where, live, seed=draw, now_s=now_s, **asked)
        assert_same(plain, decide(arrays, live, seed=draw, now_s=now_s, **asked))


def doubt(live: Pulse, one: Endpoint, now_s: float, random: Random) -> None:
    """Let something happen that breakers and limits have a say in."""
    kind, number, server = random.randrange(5), one.number, one.deployment.number
    if kind == 0 or number >= live.limit.size:
        live.take_others(live.others_in_flight, frozenset({number}))
    elif kind == 1:
        live.take_others(live.others_in_flight, frozenset())
    elif kind == 2:
        live.suspect(number, now_s)
    elif kind == 3:
        live.set_limit(number, random.choice([0.0, 2.0, np.inf]))
    else:
        live.begin(number, server, now_s)
        fault = random.choice([None, Fault.RESET])
        live.end(number, server, Outcome(fault), now_s, None, now_s)


def test_limits_are_heard_among_a_few() -> None:
    where = market([endpoint(number) for number in range(3)])
    live = pulse(where)
    live.set_limit(2, 1.0)
    live.begin(2, 2, 0.0)
    decision = decide(where, live)
    assert decision.rejected.tolist() == [2]
    assert decision.reasons.tolist() == [Rejection.FULL]


def test_the_numbers_are_used_where_there_are_a_few_endpoints_and_only_there() -> None:
    for count in (1, 2, HANDFUL_MAX, HANDFUL_MAX + 1):
        where = market([endpoint(number) for number in range(count)])
        listed = shortlist(requirements(), where)
        assert listed is not None
        assert (listed.few is not None) == (1 < count <= HANDFUL_MAX)

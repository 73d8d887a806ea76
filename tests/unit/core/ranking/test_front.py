"""Among very many, only those are weighed that can come first: the choice is as if all were."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.candidates.view import RoutingLimits
from broker.core.decision import Decision
from broker.core.health.measured import Measured
from broker.core.health.pulse import Pulse
from broker.core.market import Market, build_market
from broker.core.outcome import DELIVERED, Fault, Outcome
from broker.core.quality.lessons import Lessons
from broker.core.ranking.front import FRONT_FROM, FRONTS_MAX, USED_MIN, Front
from broker.core.requirements import PRESETS, Prompt
from broker.core.routing import route
from pricing.book import Rate
from tests.fakes import endpoint, market, planned, pulse, requirements

SIZE = 2 * FRONT_FROM
LIMITS = RoutingLimits()
BROKEN = Outcome(Fault.SERVER_ERROR, status=500)
DEMANDS: list[dict[str, Any]] = [
    *({"weights": weights} for weights in PRESETS.values()),
    *({"tokens_in_expected": tokens, "tokens_in_bound": 9_000} for tokens in (1, 97, 140, 3_000)),
    {"tokens_out_max": 7, "choices": 3},
    {"domain": "law"},
    {"quality_min": 0.6, "regions": frozenset({"eu"})},
    {"max_cost_nanos": 10**6},
    {"latency_ms_max": 30.0},
    {"value_nanos": 10**6},
    {"providers_order": ("provider-3",)},
    {"home": 17},
    {"tokens_out_max": None},
]


@lru_cache
def registered(seed: int) -> Market:
    """Some on one server, some dear, some short of context, in two regions."""
    lots = Random(seed)
    capacity = {number: lots.choice((1, 2, 10, 200)) for number in range(SIZE)}
    listed = []
    for number in range(SIZE):
        server = number - number % 3 if number < 300 else number
        listed.append(
            endpoint(
                number,
                f"provider-{number % 7}/e{number}",
                quality=lots.choice((0.5, 0.7, 0.71, lots.random())),
                rate=Rate(lots.randrange(1, 10**6), lots.randrange(1, 10**6), 0),
                domains={"law": lots.random()} if number % 3 == 0 else None,
                context_length_tokens=lots.choice((None, 100_000)),
                deployment={
                    "region": lots.choice(("eu", "us")),
                    "number": server,
                    "capacity": capacity[server],
                },
            )
        )
    return market(listed)


def again(where: Market) -> Market:
    """The same market of which nothing is remembered."""
    listed = [where.endpoint(number) for number in where.by_name.values()]
    return build_market(listed, where.book, where.presence, where)


@st.composite
def stirs(draw: st.DrawFn) -> Callable[[Pulse, Market, float], None]:
    """Something that changes the pulse."""
    number = draw(st.integers(0, SIZE - 1))
    kind, size = draw(st.integers(0, 6)), draw(st.floats(1.0, 5_000.0))

    def stir(live: Pulse, where: Market, now_s: float) -> None:
        server = where.endpoint(number).deployment.number
        if kind == 0:
            live.expect(server, 1)
        elif kind in (1, 2):
            live.begin(number, server, now_s)
            seen = Measured(ttft_ms=size, duration_ms=2 * size, tokens_out=9)
            told = (DELIVERED, now_s, seen) if kind == 1 else (BROKEN, now_s, None)
            live.end(number, server, *told)
        elif kind == 3:
            for _ in range(20):
                live.contradict(number, now_s)
        elif kind == 4:
            live.set_limit(number, 1.0 if size < 2_500 else np.inf)
        elif kind == 5:
            others = np.zeros(SIZE, dtype=np.int64)
            others[server : server + 9] = int(size) % 5
            live.take_others(others, frozenset({number} if size < 1_000 else ()))
        else:
            live.recover(now_s)

    return stir


def both(where: Market, live: Pulse, seed: int, **demands: Any) -> tuple[Decision, Decision]:
    """The decision, and what it is where all are weighed."""
    wanted = requirements(**demands)
    some = route(wanted, where, live, LIMITS, (Random(seed), 50.0), whole=False)
    everyone = route(wanted, where, live, LIMITS, (Random(seed), 50.0))
    assert some is not None
    assert everyone is not None
    return some, everyone


def alike(some: Decision, everyone: Decision) -> None:
    assert some.plan == everyone.plan
    assert some.rejected.tolist() == everyone.rejected.tolist()
    assert some.reasons.tolist() == everyone.reasons.tolist()
    assert some.value_nanos == everyone.value_nanos
    assert some.eligible.size + some.left_out == everyone.eligible.size
    at = np.searchsorted(everyone.eligible, some.eligible)
    assert everyone.eligible[at].tolist() == some.eligible.tolist()
    assert np.allclose(some.rows, everyone.rows[:, at], rtol=1e-12)
    if some.left_out:
        assert some.rows[-1].sum() == pytest.approx(1.0)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 3),
    st.sampled_from(DEMANDS),
    st.lists(stirs(), max_size=30),
    st.integers(1, 6),
    st.integers(0, 2**31),
)
def test_the_choice_is_as_if_all_were_weighed(
    kind: int,
    demands: dict[str, Any],
    changes: list[Callable[[Pulse, Market, float], None]],
    stride: int,
    seed: int,
) -> None:
    where = again(registered(kind))
    live = pulse(where)
    for at in range(0, max(len(changes), 4), stride):
        for change in changes[at : at + stride]:
            change(live, where, at / 3)
        alike(*both(where, live, seed + at, **demands))


@pytest.mark.parametrize("seed", range(3))
def test_a_busy_market_is_followed(seed: int) -> None:
    """The best fill up, and others whose calls end come to be the best."""
    lots, where = Random(seed), again(registered(seed))
    live, left_out = pulse(where), 0
    under_way = [lots.randrange(SIZE) for _ in range(200)]
    for number in under_way:
        live.begin(number, where.endpoint(number).deployment.number, 0.0)
    for step in range(500):
        demands = DEMANDS[step % 5]
        some, everyone = both(where, live, step, **demands)
        alike(some, everyone)
        left_out += bool(some.left_out)
        for number in planned(everyone)[:1] * lots.choice((1, 2, 6)):
            live.begin(number, where.endpoint(number).deployment.number, 0.0)
            under_way.append(number)
        for _ in range(lots.choice((0, 1, 2))):
            number = under_way.pop(lots.randrange(len(under_way)))
            told = lots.choice((DELIVERED, DELIVERED, BROKEN))
            shown = lots.uniform(0.5, 9.0)
            seen = Measured(shown, 9 * shown, 20) if told is DELIVERED else None
            live.end(number, where.endpoint(number).deployment.number, told, 0.0, seen)
    assert left_out > 200, left_out


def test_when_all_in_front_fill_up_others_are_weighed() -> None:
    listed = [
        endpoint(number, f"acme/e{number}", quality=0.1 + number / SIZE) for number in range(SIZE)
    ]
    where, left_out = market(listed), 0
    live = pulse(where)
    for step in range(40):
        some, everyone = both(where, live, step, weights=PRESETS["quality"])
        alike(some, everyone)
        left_out += bool(some.left_out)
        for number in some.eligible.tolist() if some.left_out else ():
            for _ in range(4):
                live.begin(number, number, 0.0)
    assert left_out > 3


@pytest.mark.parametrize("extreme", ["cheap", "soon"])
def test_when_the_cheapest_or_the_soonest_fill_up_all_are_measured_by_the_next(
    extreme: str,
) -> None:
    """Who comes next was not in front: only the best and the extremes are."""
    near = [1_000 + at if at < 60 else 1_500 if at < SIZE - 60 else 1_100 for at in range(SIZE)]
    where = market(
        endpoint(
            at,
            f"acme/e{at}",
            quality=0.1 if at < SIZE - 60 else 0.9 + at / 10**5,
            rate=Rate(10**6, 10**6, 0) if extreme == "soon" else Rate(each, each, 0),
        )
        for at, each in enumerate(near)
    )
    live, left_out = pulse(where), 0
    live.ttft_ms[:SIZE], live.tpot_ms[:SIZE] = near if extreme == "soon" else 500.0, 0.0
    for taken in range(30):
        some, everyone = both(where, live, taken, weights=PRESETS["quality"])
        alike(some, everyone)
        left_out += bool(some.left_out)
        for _ in range(20):
            live.begin(taken, taken, 0.0)
    assert left_out > 10


def test_where_a_front_was_of_use_another_follows_when_its_best_are_full() -> None:
    listed = [
        endpoint(number, f"acme/e{number}", quality=0.1 + number / SIZE) for number in range(SIZE)
    ]
    where = market(listed)
    live = pulse(where)
    for seed in range(USED_MIN + 1):
        some, _ = both(where, live, seed, weights=PRESETS["quality"])
    assert some.left_out
    for number in some.eligible.tolist():
        for _ in range(2 * where.endpoint(number).deployment.capacity):
            live.begin(number, number, 0.0)
    some, everyone = both(where, live, 0, weights=PRESETS["quality"])
    alike(some, everyone)
    assert some.left_out


def test_only_a_part_is_weighed_once_a_second_call_is_of_the_same_kind() -> None:
    where = again(registered(0))
    live = pulse(where)
    sizes = [both(where, live, seed)[0].eligible.size for seed in range(5)]
    assert sizes[:1] == [SIZE]
    assert sizes[-1] < SIZE / 4


def test_who_took_a_call_since_or_is_out_is_weighed_anew() -> None:
    where = again(registered(1))
    live = pulse(where)
    for seed in range(3):
        some, _ = both(where, live, seed)
    assert some.left_out
    first = planned(some)[0]
    server = where.endpoint(first).deployment.number
    for _ in range(400):
        live.begin(first, server, 50.0)
    some, everyone = both(where, live, 1)
    alike(some, everyone)
    assert first in some.rejected
    better = int(max(set(range(SIZE)) - set(some.eligible.tolist())))
    live.end(first, server, BROKEN, 50.0, None)
    live.set_limit(better, 0.0)
    some, everyone = both(where, live, 2)
    alike(some, everyone)
    assert better in some.rejected


def test_whoever_is_limited_is_told_among_the_rejected_though_it_was_not_in_front() -> None:
    where = again(registered(1))
    live = pulse(where)
    for seed in range(3):
        some, everyone = both(where, live, seed)
    behind = min({*everyone.eligible.tolist()} - {*some.eligible.tolist()})
    live.set_limit(behind, 0.0)
    some, everyone = both(where, live, 3)
    alike(some, everyone)
    assert some.left_out
    assert behind in some.rejected


def silent(live: Pulse, number: int) -> None:
    live.suspect(number, 50.0)


def ejected_elsewhere(live: Pulse, number: int) -> None:
    live.take_others(np.zeros(0, dtype=np.int64), frozenset({number}))


@pytest.mark.parametrize("eject", [silent, ejected_elsewhere])
@pytest.mark.parametrize("before", [True, False])
def test_whoever_is_ejected_is_told_among_the_rejected_though_it_was_not_in_front(
    eject: Callable[[Pulse, int], None], before: bool
) -> None:
    where = again(registered(1))
    live = pulse(where)
    for seed in range(3):
        some, everyone = both(where, live, seed)
    behind = min({*everyone.eligible.tolist()} - {*some.eligible.tolist()})
    where = again(registered(1)) if before else where
    eject(live, behind)
    for seed in range(3):
        some, everyone = both(where, live, seed)
        alike(some, everyone)
    assert some.left_out
    assert behind in some.rejected


def test_whoever_is_in_doubt_on_other_lists_has_nobody_weigh_all() -> None:
    where = again(registered(1))
    live = pulse(where)
    live.take_others(np.zeros(0, dtype=np.int64), frozenset(range(SIZE, 2 * SIZE)))
    for seed in range(3):
        some, everyone = both(where, live, seed)
        alike(some, everyone)
    assert some.left_out


def test_where_all_in_front_are_ejected_the_others_are_weighed() -> None:
    where = again(registered(1))
    live = pulse(where)
    for seed in range(3):
        some, everyone = both(where, live, seed)
    assert some.left_out
    front = frozenset(some.eligible.tolist())
    live.take_others(np.zeros(0, dtype=np.int64), front)
    for seed in range(3):
        some, everyone = both(where, live, seed)
        alike(some, everyone)
        assert front <= {*some.rejected.tolist()}


def test_those_that_many_are_near_are_all_weighed() -> None:
    where = market([endpoint(number, f"acme/e{number}") for number in range(SIZE)])
    live = pulse(where)
    for seed in range(30):
        some, everyone = both(where, live, seed)
        alike(some, everyone)
        assert not some.left_out


def test_a_market_with_fronts_is_gone_as_soon_as_nobody_has_it() -> None:
    where = again(registered(2))
    live = pulse(where)
    for seed in range(3):
        some, _ = both(where, live, seed)
    assert some.left_out
    assert any(isinstance(each, Front) for each in where.fronts.values())
    arrays = [weakref.ref(each.rate_in) for each in where.shortlists.values() if each is not None]
    gc.disable()
    try:
        del where
        assert [each() for each in arrays] == [None]
    finally:
        gc.enable()


def test_what_was_remembered_ends_with_the_journal() -> None:
    where = again(registered(2))
    live = pulse(where)
    for seed in range(3):
        both(where, live, seed)
    live.begin_many(np.array([5, 5, 9]))
    assert any(isinstance(each, Front) for each in where.fronts.values())
    for seed in range(40):
        alike(*both(where, live, seed))
    assert any(isinstance(each, Front) for each in where.fronts.values())


def test_of_however_many_kinds_of_calls_only_so_much_is_remembered() -> None:
    where = again(registered(0))
    live = pulse(where)
    most = 0
    for kind in range(FRONTS_MAX + 9):
        wanted = requirements(choices=1 + kind % 40, max_rate_in_micros=10**6 + kind // 40)
        for seed in range(2):
            route(wanted, where, live, LIMITS, (Random(seed), 50.0), whole=False)
        most = max(most, sum(isinstance(each, Front) for each in where.fronts.values()))
    assert FRONTS_MAX / 2 < most <= FRONTS_MAX


def test_where_it_was_learned_how_well_endpoints_answer_all_are_weighed_by_that() -> None:
    rows = np.random.default_rng(3).random((2, SIZE))
    lessons = Lessons({"law": 0}, rows, 0.0 * rows, 0.0 * rows, np.full(rows.shape, np.nan))
    where = replace(again(registered(0)), lessons=lessons)
    live, prompt = pulse(where), Prompt((0,), (1.0,))
    for seed in range(5):
        some, everyone = both(where, live, seed, prompt=prompt, weights=PRESETS["quality"])
        alike(some, everyone)
        assert not some.left_out
    assert everyone.parts[0].tolist() == rows[0, everyone.eligible].tolist()

"""A preset is a price of money once it is learned how well endpoints answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from broker.core import story
from broker.core.candidates.eligibility import Rejection
from broker.core.decision import Decision
from broker.core.health.pulse import Pulse
from broker.core.market import Market
from broker.core.quality.lessons import Lessons
from broker.core.requirements import TASTES, Prompt, Weights
from pricing.book import Rate
from tests.fakes import decide, endpoint, market, planned, pulse, requirements

PROMPT = Prompt((0,), (1.0,))
QUALITY = (0.95, 0.80, 0.79, 0.60)
MICROS = (10**7, 10**6, 10**6, 10**4)


def taught(
    scale: int = 1,
    quality: tuple[float, ...] = QUALITY,
    doubt: float = 0.0,
    rates: tuple[int, ...] = MICROS,
) -> Market:
    where = market(
        endpoint(at, f"maker-{at}/chat", rate=Rate(scale * each, scale * each, 0))
        for at, each in enumerate(rates)
    )
    rows = np.tile(np.array(quality), (2, 1))
    nothing = np.full(rows.shape, np.nan)
    lessons = Lessons({"law": 0}, rows, np.full(rows.shape, doubt), 0.0 * rows, nothing)
    return replace(where, lessons=lessons)


def decided(where: Market, live: Pulse | None = None, **demands: Any) -> Decision:
    return decide(where, live, model="auto", prompt=PROMPT, **demands)


def told(where: Market, **demands: Any) -> dict[str, Any]:
    wanted = requirements(model="auto", prompt=PROMPT, **demands)
    packed = story.encode(wanted, decided(where, **demands), [], "rehearsed", 0.0)
    return story.decode(packed).requirements


@pytest.mark.parametrize(("preset", "first"), [("quality", 0), ("balanced", 1), ("cheap", 3)])
def test_a_preset_says_how_much_better_the_dearer_must_be(preset: str, first: int) -> None:
    for seed in range(5):
        chosen = planned(decided(taught(), preset=preset, seed=seed))[0]
        assert chosen == first or (first, chosen) == (1, 2), "the two are near each other"


@pytest.mark.parametrize("preset", list(TASTES))
def test_the_level_of_all_prices_changes_no_choice(preset: str) -> None:
    one, thousand = (decided(taught(scale), preset=preset) for scale in (1, 1_000))
    assert one.scores == pytest.approx(thousand.scores)
    assert planned(one) == planned(thousand)
    assert thousand.value_nanos == pytest.approx(1_000 * (one.value_nanos or 0))


def test_no_single_endpoint_says_what_is_typical() -> None:
    def worth(rate: int) -> float | None:
        where = market(
            endpoint(at, f"maker-{at}/chat", rate=Rate(each, each, 0))
            for at, each in enumerate((10**5, 10**6, rate))
        )
        lessons = taught().lessons
        return decided(replace(where, lessons=lessons), preset="balanced").value_nanos

    assert worth(10**7) == worth(10**12)


def test_the_hurried_take_the_soonest_unless_it_is_much_worse() -> None:
    where = taught(quality=(0.8, 0.8, 0.8, 0.8))
    live = pulse(where)
    live.ttft_ms[:], live.tpot_ms[:] = 500.0, 20.0
    live.ttft_ms[0], live.tpot_ms[0] = 100.0, 4.0
    assert planned(decided(where, live, preset="fast"))[0] == 0
    assert planned(decided(where, live, preset="balanced"))[0] == 3
    live.ttft_ms[0], live.tpot_ms[0] = 490.0, 19.6
    assert planned(decided(where, live, preset="fast"))[0] != 0, "2 % sooner, and ten times as dear"


@pytest.mark.parametrize("preset", list(TASTES))
def test_of_the_equally_good_nobody_gets_one_that_is_dearer(preset: str) -> None:
    where = taught(quality=(0.8, 0.8, 0.8, 0.8), rates=(2 * 10**6, 10**6, 1_002_000, 10**8))
    firsts = {planned(decided(where, preset=preset, seed=seed))[0] for seed in range(40)}
    assert firsts == {1, 2}, "who costs as much but for 0.2 % shares the calls"


@pytest.mark.parametrize("preset", list(TASTES))
def test_nobody_gets_a_worse_one_that_costs_as_much(preset: str) -> None:
    where = taught(quality=(0.8, 0.795, 0.782, 0.778), rates=(10**6,) * 4)
    firsts = {planned(decided(where, preset=preset, seed=seed))[0] for seed in range(40)}
    assert firsts == {0, 1}, "who is as good to 0.01 shares the calls"


def test_a_stated_worth_shares_calls_among_equals_alone() -> None:
    where = taught(quality=(0.8, 0.8, 0.79, 0.78), rates=(10**6, 2 * 10**6, 2 * 10**6, 10**5))
    for seed in range(40):
        assert planned(decided(where, value_nanos=10**9, seed=seed))[0] == 0


def test_a_claim_counts_as_far_as_nothing_else_is_known() -> None:
    alike = (0.8, 0.8, 0.8, 0.8)
    for doubt, gap in ((1.0, 0.05), (0.0, 0.0)):
        where = taught(quality=alike, doubt=doubt)
        claims = [endpoint(4, "maker-4/law", rate=Rate(10**6, 10**6, 0), domains={"law": 0.8})]
        assert where.lessons is not None
        everyone = [where.endpoint(at) for at in range(4)] + claims
        rows = np.full((2, 5), 0.8)
        lessons = replace(
            where.lessons,
            table=rows,
            doubt=np.full(rows.shape, doubt),
            weight=0.0 * rows,
            tokens_out=np.full(rows.shape, np.nan),
        )
        decision = decided(
            replace(market(everyone), lessons=lessons), preset="balanced", domain="law"
        )
        assert decision.scores[4] - decision.scores[1] == pytest.approx(gap)


def test_own_weights_a_value_and_what_is_not_learned_leave_a_preset_aside() -> None:
    weights = Weights(1.0, 0.0, 0.0, 0.0, 0.0)
    plain = decided(taught(), weights=weights)
    assert plain.value_nanos is None
    assert plain.scores.tolist() == pytest.approx(QUALITY)
    valued = decided(taught(), preset="cheap", value_nanos=10**6)
    assert valued.value_nanos == 10**6
    assert valued.scores.tolist() == decided(taught(), value_nanos=10**6).scores.tolist()
    untaught = replace(taught(), lessons=None)
    by_preset, by_weights = (
        decide(untaught, model="auto", preset=preset, prompt=PROMPT) for preset in ("cheap", None)
    )
    assert by_preset.value_nanos is None
    assert by_preset.scores.tolist() == by_weights.scores.tolist()


@pytest.mark.parametrize("preset", list(TASTES))
def test_the_story_tells_what_money_was_worth_and_by_which_preset(preset: str) -> None:
    said = told(taught(), preset=preset)
    # 100 tokens in and 100 out, at a dollar a million.
    assert said["score_per_usd"] == pytest.approx(1.0 / (TASTES[preset].worth * 200e-6))
    assert said["score_per_usd_by"] == preset
    assert "score_per_usd" not in told(replace(taught(), lessons=None), preset=preset)
    assert told(taught(), preset=preset, value_nanos=10**9)["score_per_usd_by"] == "value_usd"


def test_where_nobody_is_left_nobody_is_chosen() -> None:
    decision = decided(taught(), preset="balanced", providers_only=frozenset({"unheard-of"}))
    assert decision.plan == ()
    assert decision.scores.size == 0


@pytest.mark.parametrize("preset", list(TASTES))
def test_a_score_is_quality_that_is_there_less_cost_and_lateness_and_ever_closer_to_minus_two(
    preset: str,
) -> None:
    where = taught(rates=(10**12, 10**6, 10**6, 10**4))
    live, taste = pulse(where), TASTES[preset]
    live.ttft_ms[:4], live.tpot_ms[:4] = (400.0, 100.0, 25_000.0, 9_000.0), 0.0
    live.availability[:4] = 1.0, 0.5, 1.0, 0.9
    decision = decided(where, live, preset=preset)
    latency = live.ttft_ms[:4]
    late = latency / 100.0 - 1.0 if taste.hurried else np.maximum(latency / 10_000.0 - 1.0, 0.0)
    assert decision.value_nanos is not None
    costs = decision.costs_picos / (1_000.0 * decision.value_nanos)
    claimed = 0.1 * decision.parts[1]
    plain = np.array(QUALITY) * live.availability[:4] + claimed - costs - taste.lateness * late
    assert plain.min() < -1.0 < plain.max()
    shown = [each if each >= -1.0 else -2.0 - 1.0 / each for each in plain.tolist()]
    assert decision.scores.tolist() == pytest.approx(shown)


@pytest.mark.parametrize("size", [4, 40])
def test_a_preset_of_which_nothing_is_learned_is_weights_among_however_many(size: int) -> None:
    where = market(endpoint(at, f"maker-{at}/chat", quality=0.01 * at) for at in range(size))
    plain, preset = (decide(where, preset=each) for each in (None, "cheap"))
    assert preset.value_nanos is None
    assert preset.scores.tolist() == plain.scores.tolist()


def test_a_quality_that_is_learned_is_held_against_what_is_asked_for_and_just_enough_is() -> None:
    decision = decided(taught(), quality_min=0.8)
    assert decision.eligible.tolist() == [0, 1]
    assert {Rejection(each) for each in decision.reasons.tolist()} == {Rejection.QUALITY_TOO_LOW}


def test_where_no_prompt_tells_what_was_learned_what_is_declared_counts() -> None:
    decision = decide(taught(), model="auto", quality_min=0.5)
    assert decision.eligible.tolist() == [0, 1, 2, 3]
    assert decision.parts[0].tolist() == [0.5] * 4

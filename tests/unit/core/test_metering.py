"""What is paid for: claims within bounds, estimates for the consumer, nothing for nothing."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.metering import (
    END_TOKENS,
    NOTHING,
    TEMPLATE_TOKENS,
    Delivered,
    Expected,
    Usage,
    judge,
    meter,
)

EXPECTED = Expected(
    tokens_in_bound=464,
    body_bytes=400,
    tokens_out_max=1_000,
    bytes_in_per_token=4.0,
    bytes_out_per_token=4.0,
)


def metered(**seen: Any) -> Usage:
    told: dict[str, Any] = {"claimed_in": 100, "claimed_out": 50, "text_bytes": 200}
    return meter(Delivered(**(told | seen)), EXPECTED)


def test_an_honest_claim_is_paid_as_it_stands() -> None:
    assert metered() == Usage(100, 50)


def test_a_claim_above_a_token_a_byte_is_cut_to_the_bound_and_noted() -> None:
    usage = metered(claimed_in=10_000, claimed_out=10_000)
    assert (usage.tokens_in, usage.tokens_out) == (464, 200 + END_TOKENS)
    assert usage.notes == ("tokens_in_cut_from_10000", "tokens_out_cut_from_10000")


def test_a_claim_far_above_the_estimate_is_paid_and_noted() -> None:
    likely_in, likely_out = 100 + TEMPLATE_TOKENS, 50 + END_TOKENS
    suspicious = metered(claimed_in=int(1.3 * likely_in) + 1, claimed_out=int(1.3 * likely_out) + 1)
    assert suspicious.notes == ("tokens_in_suspicious", "tokens_out_suspicious")
    assert suspicious.tokens_in == int(1.3 * likely_in) + 1
    usual = metered(claimed_in=int(1.3 * likely_in), claimed_out=int(1.3 * likely_out))
    assert usual.notes == ()


def test_output_is_never_paid_above_what_was_reserved_for_it() -> None:
    assert metered(claimed_out=5_000, text_bytes=50_000).tokens_out == 1_000


def test_a_claim_that_counts_tools_and_roles_is_not_cut_to_the_text_alone() -> None:
    assert metered(claimed_in=300, exact_in=90, beside_in=200).tokens_in == 300
    assert metered(claimed_in=400, exact_in=90, beside_in=200).tokens_in == 290 + TEMPLATE_TOKENS
    assert metered(claimed_in=None, exact_in=90, beside_in=200).tokens_in == 90


def test_usage_that_is_missing_is_estimated_by_bytes_without_an_allowance() -> None:
    usage = metered(claimed_in=None, claimed_out=None, text_bytes=201)
    assert usage == Usage(100, 51, ("tokens_in_estimated", "tokens_out_estimated"))


def test_an_estimate_has_no_more_tokens_than_bytes_whatever_was_learned() -> None:
    learned = Expected(464, 400, 1_000, 4.0, 0.5)
    seen = Delivered(claimed_in=None, claimed_out=None, text_bytes=200)
    assert meter(seen, learned).tokens_out == 200


def test_a_claim_below_nothing_is_nothing() -> None:
    assert metered(claimed_in=-5).tokens_in == 0
    assert metered(claimed_out=-5) is NOTHING


def test_an_estimate_stays_within_the_bounds() -> None:
    modest = Expected(50, 400, 10, 1.0, 1.0)
    usage = meter(Delivered(claimed_in=None, claimed_out=None, text_bytes=4_000), modest)
    assert (usage.tokens_in, usage.tokens_out) == (50, 10)


def test_nothing_delivered_is_nothing_paid() -> None:
    assert metered(text_bytes=0) is NOTHING


def test_reasoning_that_was_only_claimed_has_reached_nobody() -> None:
    assert metered(text_bytes=0, claimed_out=300, hidden_out=300) is NOTHING


def test_what_is_told_beside_a_text_is_delivered_and_paid_within_a_token_each() -> None:
    assert metered(text_bytes=0, claimed_out=1, beside_text=1) == Usage(100, 1)
    assert metered(text_bytes=0, claimed_out=900, beside_text=3).tokens_out == 3 + END_TOKENS
    assert metered(text_bytes=0, claimed_out=None, beside_text=3).tokens_out == 3
    counted = metered(text_bytes=0, claimed_out=2, beside_text=1, exact_in=100, exact_out=0)
    assert counted == Usage(100, 2)


def test_zero_completion_tokens_cost_nothing_the_prompt_included() -> None:
    assert metered(claimed_out=0) is NOTHING


def test_hidden_reasoning_is_paid_within_the_output_limit() -> None:
    assert metered(claimed_out=350, hidden_out=300).tokens_out == 350
    assert metered(claimed_out=5_000, hidden_out=5_000).tokens_out == 1_000


def test_hidden_reasoning_that_is_told_apart_is_not_suspicious() -> None:
    assert metered(claimed_out=350, hidden_out=300).notes == ()


def test_each_choice_may_end_with_tokens_that_are_not_text() -> None:
    assert metered(claimed_out=10_000, choices=3).tokens_out == 200 + 3 * END_TOKENS


def test_an_exact_count_bounds_a_claim_closer_than_bytes_do() -> None:
    usage = metered(claimed_in=400, claimed_out=190, exact_in=90, exact_out=45)
    assert (usage.tokens_in, usage.tokens_out) == (90 + TEMPLATE_TOKENS, 45 + END_TOKENS)
    assert usage.notes == ("tokens_in_cut_from_400", "tokens_out_cut_from_190")


def test_an_exact_count_bounds_a_claim_that_the_bytes_alone_would_let_pass() -> None:
    assert metered(claimed_in=150, exact_in=80).tokens_in == 80 + TEMPLATE_TOKENS
    assert metered(claimed_out=58, exact_out=45).tokens_out == 45 + END_TOKENS


def test_an_exact_count_stands_in_for_usage_that_is_missing() -> None:
    usage = metered(claimed_in=None, claimed_out=None, exact_in=90, exact_out=45)
    assert (usage.tokens_in, usage.tokens_out) == (90, 45)


def test_an_embedding_is_paid_by_its_prompt_alone() -> None:
    usage = metered(claimed_out=0, text_bytes=0, generates=False)
    assert usage == Usage(100, 0)
    assert metered(claimed_out=50, text_bytes=0, generates=False) == Usage(100, 0)


@pytest.mark.parametrize("claimed", [None, 0])
def test_a_claim_of_nothing_is_taken_at_its_word_and_a_missing_one_is_not(
    claimed: int | None,
) -> None:
    assert (metered(claimed_out=claimed).tokens_out > 0) is (claimed is None)


@settings(derandomize=True)
@given(
    claimed_in=st.none() | st.integers(0, 10**6),
    claimed_out=st.none() | st.integers(0, 10**6),
    text_bytes=st.integers(0, 10**5),
    hidden_out=st.integers(0, 10**6),
    exact_in=st.none() | st.integers(0, 10**5),
    exact_out=st.none() | st.integers(0, 10**5),
    choices=st.integers(1, 8),
)
def test_no_provider_is_ever_paid_above_the_bounds(**seen: Any) -> None:
    usage = meter(Delivered(**seen), EXPECTED)
    assert 0 <= usage.tokens_in <= EXPECTED.tokens_in_bound
    assert 0 <= usage.tokens_out <= EXPECTED.tokens_out_max


def test_a_claim_that_is_not_looked_into_is_paid_as_if_it_were() -> None:
    # Small numbers, so that each bound is met from both sides; ten times as many as drawn by rules.
    random = Random(7)

    def some(most: int, least: int = -2) -> int | None:
        return None if random.random() < 0.2 else random.randint(least, most)

    plain = 0
    for _ in range(20_000):
        learned = random.choice((0.4, 1.0, 2.0, 4.0)), random.choice((0.4, 1.0, 2.0, 4.0))
        expected = Expected(random.randint(0, 90), *random.choices(range(25), k=2), *learned)
        exact = (some(12, 0), some(12, 0)) if random.random() < 0.3 else (None, None)
        told = random.randint(1, 24), random.choice((0, 0, 9)), "", *exact
        seen = Delivered(some(90), some(24), *told, choices=random.randint(1, 2))
        usage = meter(seen, expected)
        assert usage == judge(seen, expected), (seen, expected)
        plain += usage == Usage(seen.claimed_in or 0, seen.claimed_out or 0)
    assert 2_000 < plain < 18_000

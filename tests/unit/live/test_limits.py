"""How a process draws on the buckets of keys, and what it grants while it is alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast
from uuid import UUID

import pytest
from redis.asyncio import Redis

from broker.core.key_terms import NO_RATES, Rates
from broker.errors import RequestRefused, TooManyCalls
from broker.live.connection import Valkey
from broker.live.limits import BUCKETS_MAX, RateLimits

A, B = UUID(int=1), UUID(int=2)
SIXTY = Rates(requests_per_minute=60)
SIX = Rates(requests_per_minute=6)
TOKENS = Rates(tokens_per_minute=600)

_Answer = TypeVar("_Answer")


class Scripted(Valkey):
    """Grants what it is told to; away while it is told nothing."""

    def __init__(self, *answers: tuple[int, int]) -> None:
        super().__init__("redis://nowhere", "market")
        self.answers = list(answers)
        self.asked: list[list[int]] = []
        """Of each question: the limit, the least, the most, and what is given back."""

    async def ask(
        self, question: Callable[[Redis], Awaitable[_Answer]], fallback: _Answer
    ) -> _Answer:
        return await question(cast(Redis, self)) if self.answers else fallback

    async def eval(self, _: str, __: int, ___: str, *numbers: Any) -> tuple[int, int]:
        self.asked.append(list(map(int, numbers)))
        return self.answers.pop(0)


class Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


async def granted(limits: RateLimits, rates: Rates, key_id: str = "k") -> int:
    """How many requests get in, until one does not."""
    for count in range(10_000):
        try:
            await limits.enter(key_id, rates)
        except TooManyCalls:
            return count
    raise AssertionError("the key was never refused")


async def refusal(limits: RateLimits, rates: Rates) -> TooManyCalls:
    with pytest.raises(TooManyCalls) as raised:
        await limits.enter("k", rates)
    return raised.value


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def alone(clock: Clock) -> RateLimits:
    """A process without Valkey."""
    return RateLimits(Scripted(), clock)


async def test_alone_a_bucket_fills_evenly_and_never_beyond_a_minutes_worth(
    alone: RateLimits, clock: Clock
) -> None:
    assert await granted(alone, SIXTY) == 60
    for passed_s, flowed in ((0.5, 0), (0.5, 1), (7.0, 7), (3_600.0, 60), (1.0, 1)):
        clock.now_s += passed_s
        assert await granted(alone, SIXTY) == flowed
    assert alone.granted_alone == 60 + 69


async def test_alone_a_key_is_told_when_the_next_will_have_flowed_in(
    alone: RateLimits, clock: Clock
) -> None:
    assert await granted(alone, SIX) == 6
    assert (await refusal(alone, SIX)).retry_after_s == 10
    clock.now_s += 3.5
    assert (await refusal(alone, SIX)).retry_after_s == 7, "rounded up, or it would come in vain"
    clock.now_s += 6.4
    assert (await refusal(alone, SIX)).retry_after_s == 1
    assert alone.refused == 4


async def test_alone_tokens_that_a_call_did_not_use_can_be_taken_again(
    alone: RateLimits, clock: Clock
) -> None:
    await alone.take(A, "k", TOKENS, 600)
    alone.give_back(A, 100)
    alone.give_back(A)
    await alone.take(B, "k", TOKENS, 500)
    with pytest.raises(TooManyCalls):
        await alone.take(A, "k", TOKENS, 1)
    alone.give_back(B, 501)
    with pytest.raises(TooManyCalls):
        await alone.take(A, "k", TOKENS, 1)
    clock.now_s += 0.11
    await alone.take(A, "k", TOKENS, 1)


async def test_what_valkey_granted_counts_once_it_is_away(clock: Clock) -> None:
    limits = RateLimits(Scripted(*[(1, 0)] * 41), clock)
    await limits.enter("k", SIXTY)
    clock.now_s += 3_600.0
    for _ in range(40):
        await limits.enter("k", SIXTY)
    assert limits.granted_alone == 0
    assert await granted(limits, SIXTY) == 20
    assert limits.granted_alone == 20


async def test_what_was_granted_alone_is_not_drawn_once_valkey_is_back(clock: Clock) -> None:
    valkey = Scripted()
    limits = RateLimits(valkey, clock)
    for _ in range(10):
        await limits.enter("k", SIXTY)
    valkey.answers = [(1, 0)]
    await limits.enter("k", SIXTY)
    assert valkey.asked == [[60, 1, 1, 0]]


async def test_a_lease_is_drawn_and_spent_before_another_is(clock: Clock) -> None:
    valkey = Scripted((2, 0), (2, 0), (1, 0))
    limits = RateLimits(valkey, clock)
    for _ in range(4):
        await limits.enter("k", Rates(requests_per_minute=100))
    assert valkey.asked == [[100, 1, 2, 0]] * 2
    await limits.enter("small", SIX)
    assert valkey.asked[2:] == [[6, 1, 1, 0]], "one at least"


async def test_more_than_a_lease_is_drawn_for_who_needs_it_less_what_is_there(
    clock: Clock,
) -> None:
    valkey = Scripted((12, 0), (10, 0), (80, 0))
    limits = RateLimits(valkey, clock)
    await limits.take(A, "k", TOKENS, 5)
    await limits.take(B, "k", TOKENS, 97)
    assert valkey.asked == [[600, 5, 12, 0], [600, 90, 90, 0], [600, 80, 80, 0]]


async def test_what_comes_back_beyond_a_lease_goes_to_the_other_processes(clock: Clock) -> None:
    valkey = Scripted((100, 0), (0, 0), (12, 0))
    limits = RateLimits(valkey, clock)
    await limits.take(A, "k", TOKENS, 100)
    limits.give_back(A, 30)
    await asyncio.sleep(0)
    assert valkey.asked[1:] == [[600, 0, 0, 58]], "70, less the 12 of a lease"
    await limits.take(A, "k", TOKENS, 12)
    limits.give_back(A, 6)
    await asyncio.sleep(0)
    assert len(valkey.asked) == 2, "a lease is kept"
    await limits.take(B, "k", TOKENS, 7)
    assert valkey.asked[2:] == [[600, 1, 12, 0]]


async def test_what_came_back_goes_with_the_next_question_if_that_is_sooner(clock: Clock) -> None:
    valkey = Scripted((100, 0), (30, 0), (0, 0))
    limits = RateLimits(valkey, clock)
    await limits.take(A, "k", TOKENS, 100)
    limits.give_back(A)
    await limits.take(B, "k", TOKENS, 42)
    await asyncio.sleep(0)
    assert valkey.asked[1:] == [[600, 30, 30, 88]], "and nobody is asked again"


@pytest.mark.parametrize(("wait_ms", "retry_s"), [(0, 1), (1_000, 1), (1_001, 2), (59_999, 60)])
async def test_who_is_refused_is_told_in_whole_seconds_when_valkey_would_grant_it(
    clock: Clock, wait_ms: int, retry_s: int
) -> None:
    limits = RateLimits(Scripted((0, wait_ms)), clock)
    assert (await refusal(limits, SIXTY)).retry_after_s == retry_s
    assert (limits.refused, limits.granted_alone) == (1, 0)


async def test_a_refusal_tells_the_limit_in_the_words_of_what_was_asked(alone: RateLimits) -> None:
    one = Rates(requests_per_minute=1)
    await alone.enter("k", one)
    assert (await refusal(alone, one)).detail == "This key may use 1 request in a minute."
    for _ in range(2):
        await alone.count("k", "looks", 2)
    with pytest.raises(TooManyCalls) as raised:
        await alone.count("k", "looks", 2)
    assert raised.value.detail == "This key may use 2 looks in a minute."


async def test_a_key_without_a_limit_and_a_call_without_tokens_take_nothing(
    alone: RateLimits,
) -> None:
    await alone.enter("k", NO_RATES)
    await alone.enter("k", TOKENS)
    await alone.take(A, "k", NO_RATES, 10**9)
    await alone.take(A, "k", SIXTY, 10**9)
    await alone.take(A, "k", TOKENS, 0)
    alone.rename(A, B)
    alone.give_back(B)
    assert (alone.granted_alone, alone.refused) == (0, 0)


async def test_a_call_may_use_a_minutes_worth_and_not_one_more(alone: RateLimits) -> None:
    with pytest.raises(RequestRefused):
        await alone.take(A, "k", TOKENS, 601)
    assert alone.refused == 1
    await alone.take(A, "k", TOKENS, 600)


async def test_of_very_many_keys_the_ones_known_for_longest_are_forgotten(
    alone: RateLimits,
) -> None:
    one = Rates(requests_per_minute=1)
    for number in range(BUCKETS_MAX):
        await alone.enter(str(number), one)
    for number in (0, BUCKETS_MAX - 1):
        assert await granted(alone, one, str(number)) == 0
    await alone.enter("one more", one)
    assert await granted(alone, one, str(BUCKETS_MAX - 1)) == 0
    assert await granted(alone, one, "0") == 1

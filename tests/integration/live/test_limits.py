"""Rate limits of keys: shared by two processes, kept by each alone while Valkey is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from broker.core.key_terms import Rates
from broker.errors import RequestRefused, TooManyCalls
from broker.live.limits import LEASE_PARTS, RateLimits
from broker.live.room import Live
from tests.integration.live.passage import Passage
from tests.waiting import until

A, B = UUID(int=1), UUID(int=2)
SIXTY = Rates(requests_per_minute=60)
MANY = Rates(requests_per_minute=6_000)
TOKENS = Rates(tokens_per_minute=10_000)
PATIENT_S = 60.0
"""On a busy machine thousands who ask at once may take a second to connect: then Valkey would be
away, and each process alone grants the whole limit."""


@pytest.fixture
async def here(passage: Passage) -> AsyncIterator[Live]:
    """A patient process whose way to Valkey goes through the passage."""
    live = Live.connect(passage.url, timeout_s=PATIENT_S)
    yield live
    await live.close()


@pytest.fixture
async def there(valkey_url: str) -> AsyncIterator[Live]:
    """Another, with a way of its own."""
    live = Live.connect(valkey_url, timeout_s=PATIENT_S)
    yield live
    await live.close()


async def granted(limits: RateLimits, rates: Rates, asked: int) -> int:
    """How many of so many requests at once get in."""
    told = await asyncio.gather(
        *(limits.enter("k", rates) for _ in range(asked)), return_exceptions=True
    )
    refused = [each for each in told if each is not None]
    assert all(isinstance(each, TooManyCalls) for each in refused), refused
    return asked - len(refused)


async def refusal(limits: RateLimits, rates: Rates, within: int = 2_000) -> TooManyCalls:
    """What the key is told once it has used up what there was."""
    for _ in range(within):
        try:
            await limits.enter("k", rates)
        except TooManyCalls as error:
            return error
    raise AssertionError("the key was never refused")


async def test_a_rested_key_has_a_minutes_worth_and_is_then_told_when_to_come(here: Live) -> None:
    began = asyncio.get_running_loop().time()
    got = await granted(here.limits, SIXTY, 100)
    flowed = asyncio.get_running_loop().time() - began
    assert 60 <= got <= 61 + flowed
    told = await refusal(here.limits, SIXTY)
    assert (told.code, told.status) == ("key_rate", 429)
    assert told.retry_after_s == 1, "one flows in each second"
    assert "60 requests" in told.detail
    assert here.limits.refused >= 100 - got + 1


async def test_two_processes_share_one_limit_but_for_a_lease(here: Live, there: Live) -> None:
    began = asyncio.get_running_loop().time()
    both = await asyncio.gather(
        granted(here.limits, MANY, 4_000), granted(there.limits, MANY, 4_000)
    )
    flowed = 100 * (asyncio.get_running_loop().time() - began)
    assert 6_000 - 2 * 6_000 // LEASE_PARTS <= sum(both) <= 6_001 + flowed


async def test_three_processes_are_never_above_the_limit_by_more_than_a_lease_each(
    here: Live, there: Live, valkey_url: str
) -> None:
    """All ask for far more than there is, unevenly, until long after it has gone; what was granted
    at any moment is what a bucket holds and what flowed in, however the leases lie."""
    yonder = Live.connect(valkey_url, timeout_s=PATIENT_S)
    rates = Rates(requests_per_minute=3_000)
    lease, clock = 3_000 // LEASE_PARTS, asyncio.get_running_loop().time
    began, got = clock(), 0

    async def greedy(live: Live, pause_s: float) -> None:
        nonlocal got
        while clock() < began + 1.5:
            try:
                await live.limits.enter("k", rates)
            except TooManyCalls:
                await asyncio.sleep(pause_s)
                continue
            got += 1
            alone = sum(each.limits.granted_alone for each in (here, there, yonder))
            assert got <= 3_000 + 50 * (clock() - began) + 3 * lease + alone

    try:
        await asyncio.gather(greedy(here, 0.0), greedy(there, 0.01), greedy(yonder, 0.03))
    finally:
        await yonder.close()
    assert got >= 3_000 - 3 * lease, "and what there is can be had"


async def test_a_lease_spares_the_way_to_valkey(here: Live, passage: Passage) -> None:
    await here.limits.enter("k", MANY)
    await passage.close()
    for _ in range(6_000 // LEASE_PARTS - 1):
        await here.limits.enter("k", MANY)
    assert here.limits.granted_alone == 0
    assert here.valkey.reachable, "nobody has asked since"


async def test_keys_do_not_share(here: Live, there: Live) -> None:
    await granted(here.limits, SIXTY, 70)
    await there.limits.enter("another", SIXTY)


async def test_what_flows_in_can_be_used(here: Live) -> None:
    fast = Rates(requests_per_minute=12_000)
    await granted(here.limits, fast, 12_000)
    await refusal(here.limits, fast, 100_000)
    await until(lambda: _gets_in(here.limits, fast))


async def _gets_in(limits: RateLimits, rates: Rates) -> bool:
    try:
        await limits.enter("k", rates)
    except TooManyCalls:
        return False
    return True


async def test_tokens_that_a_call_did_not_use_come_back(here: Live, there: Live) -> None:
    await here.limits.take(A, "k", TOKENS, 9_000)
    with pytest.raises(TooManyCalls) as raised:
        await there.limits.take(B, "k", TOKENS, 9_000)
    assert raised.value.retry_after_s is not None
    assert 40 <= raised.value.retry_after_s <= 48, "8,000 are lacking, 167 flow in each second"
    here.limits.give_back(A, 100)
    here.limits.give_back(A, 100)
    await until(lambda: _takes(there.limits, 9_000))
    with pytest.raises(TooManyCalls):
        await here.limits.take(UUID(int=3), "k", TOKENS, 9_000)


async def _takes(limits: RateLimits, tokens: int) -> bool:
    try:
        await limits.take(B, "k", TOKENS, tokens)
    except TooManyCalls:
        return False
    return True


async def test_tokens_come_back_under_the_id_that_their_call_goes_on_with(here: Live) -> None:
    await here.limits.take(A, "k", TOKENS, 9_000)
    here.limits.rename(A, B)
    here.limits.give_back(A)
    assert not await _takes(here.limits, 9_000)
    here.limits.give_back(B)
    await until(lambda: _takes(here.limits, 9_000))


async def test_a_call_that_used_more_than_it_took_gives_nothing_back(here: Live) -> None:
    await here.limits.take(A, "k", TOKENS, 10_000)
    here.limits.give_back(A, 20_000)
    with pytest.raises(TooManyCalls):
        await here.limits.take(B, "k", TOKENS, 5_000)


async def test_more_than_a_minutes_worth_is_refused_for_good(here: Live) -> None:
    with pytest.raises(RequestRefused) as raised:
        await here.limits.take(A, "k", TOKENS, 10_001)
    assert (raised.value.code, raised.value.status) == ("key_rate", 429)
    assert not raised.value.retryable
    assert raised.value.retry_after_s is None


async def test_without_valkey_a_process_keeps_to_the_limit_alone_and_says_so(
    here: Live, passage: Passage
) -> None:
    first = await granted(here.limits, SIXTY, 40)
    assert first == 40
    await passage.close()
    with capture_logs() as logs:
        rest = await granted(here.limits, SIXTY, 100)
    assert 19 <= rest <= 25, "what it had spent before counts"
    assert here.limits.granted_alone >= 18
    said = [each for each in logs if "rate limits" in each["event"]]
    assert [each["log_level"] for each in said] == ["warning"]
    assert (await refusal(here.limits, SIXTY)).retry_after_s == 1
    await passage.open()
    await until(lambda: _asks_again(here))


async def _asks_again(live: Live) -> bool:
    before = live.limits.granted_alone
    await live.limits.enter(f"fresh {before}", SIXTY)
    return live.limits.granted_alone == before and live.valkey.reachable


async def test_a_limit_that_is_changed_holds_from_then_on(here: Live) -> None:
    await here.limits.enter("k", MANY)
    began = asyncio.get_running_loop().time()
    got = await granted(here.limits, SIXTY, 200)
    assert got <= 61 + (asyncio.get_running_loop().time() - began)

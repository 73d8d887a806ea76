"""The tokenizers of a market, loaded beside the calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from broker.core.catalog import Endpoint
from broker.encoding.tokens import LONG_CHARACTERS, TEXT_CHARACTERS_MAX, TokenCounter
from tests.fakes import endpoint
from tests.integration.api.beside import Threads, done_beside


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    with done_beside() as threads:
        yield threads


def tokenizer(*words: str) -> str:
    vocabulary = {word: number for number, word in enumerate(words)}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": words[0]}
    return json.dumps({"version": "1.0", "model": model, "pre_tokenizer": {"type": "Whitespace"}})


def endpoints(*texts: str | None) -> tuple[Endpoint, ...]:
    return tuple(
        endpoint(number, f"acme/{number}", tokenizer_json=text) for number, text in enumerate(texts)
    )


async def test_endpoints_of_one_text_share_one_tokenizer(threads: Threads) -> None:
    counter = TokenCounter()
    market = endpoints(tokenizer("a"), tokenizer("a"), None, tokenizer("b"))
    await counter.prepare(market)
    assert [counter.count(each.id, "a a b") for each in market] == [3, 3, None, 3]
    assert len(threads.results()) == 2
    grown = (*market, endpoint(9, "acme/9", tokenizer_json=tokenizer("a")))
    await counter.prepare(grown)
    assert counter.count(grown[-1].id, "a") == 1
    assert len(threads.results()) == 2
    await counter.prepare(grown[1:])
    assert [counter.count(each.id, "a") for each in grown] == [None, 1, None, 1, 1]


async def test_a_market_that_changes_while_a_tokenizer_is_loaded_has_it_loaded_once(
    threads: Threads,
) -> None:
    counter = TokenCounter()
    first = endpoints(tokenizer("a"), tokenizer("b"), tokenizer("c"))
    loading = asyncio.create_task(counter.prepare(first))
    await asyncio.sleep(0)
    await counter.prepare(first[1:])
    await loading
    assert [counter.count(each.id, "a") for each in first] == [None, 1, 1], "the first has gone"
    assert len(threads.results()) == 3


@pytest.mark.parametrize(("of_all", "of_a_provider"), [(250, 10_000), (10_000, 250)])
async def test_without_room_for_a_tokenizer_its_tokens_are_not_counted(
    of_all: int, of_a_provider: int
) -> None:
    first, second = tokenizer("a"), tokenizer("b")
    assert len(first) < 250 < len(first) + len(second)
    counter, market = TokenCounter(of_all, of_a_provider), endpoints(first, second, first)
    await counter.prepare(market)
    assert [counter.count(each.id, "a") for each in market] == [1, None, 1]
    await counter.prepare(market[1:2])
    assert counter.count(market[1].id, "a") == 1, "the others have left"


async def test_a_long_text_is_counted_in_a_thread_to_the_same_number() -> None:
    counter, (market,) = TokenCounter(), endpoints(tokenizer("a", "b"))
    await counter.prepare((market,))
    text = "a b " * LONG_CHARACTERS
    begun = counter.begin(market.id, text)
    assert begun is not None
    assert not begun.done()
    assert await begun == 2 * LONG_CHARACTERS
    assert await counter.count_beside(market.id, text) == 2 * LONG_CHARACTERS
    assert counter.count(market.id, text) is None, "it would hold all calls up"


async def test_no_more_than_a_bound_waits_to_be_counted_and_the_rest_is_not() -> None:
    text = "a b " * LONG_CHARACTERS
    counter, (market,) = TokenCounter(queued_max=2 * len(text)), endpoints(tokenizer("a", "b"))
    await counter.prepare((market,))
    begun = [counter.begin(market.id, text) for _ in range(3)]
    assert [each is None for each in begun] == [False, False, True]
    assert await counter.count_beside(market.id, text) is None
    assert [await each for each in begun if each is not None] == [2 * LONG_CHARACTERS] * 2
    assert await counter.count_beside(market.id, text) == 2 * LONG_CHARACTERS


async def test_a_text_whose_caller_has_left_takes_its_room_until_it_is_counted() -> None:
    text = "a b " * LONG_CHARACTERS
    counter, (market,) = TokenCounter(queued_max=len(text)), endpoints(tokenizer("a", "b"))
    await counter.prepare((market,))
    leaving = asyncio.create_task(counter.count_beside(market.id, text))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)  # what a thread has done is heard of one turn of the loop later
    assert counter.begin(market.id, text) is None
    assert leaving.cancelled()


async def test_a_short_text_is_counted_at_once() -> None:
    counter, (market,) = TokenCounter(), endpoints(tokenizer("a", "b"))
    await counter.prepare((market,))
    assert counter.begin(market.id, "a b") is None
    assert await counter.count_beside(market.id, "a b") == 2


async def test_what_nobody_can_count_is_not_begun() -> None:
    counter, (known, unknown) = TokenCounter(), endpoints(tokenizer("a"), None)
    await counter.prepare((known, unknown))
    assert counter.begin(unknown.id, "a " * LONG_CHARACTERS) is None
    assert counter.begin(known.id, "a" * (TEXT_CHARACTERS_MAX + 1)) is None
    assert await counter.count_beside(unknown.id, "a " * LONG_CHARACTERS) is None


async def test_a_tokenizer_that_breaks_over_a_long_text_counts_nothing_any_more() -> None:
    model = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "[UNK]"}
    counter, (market,) = TokenCounter(), endpoints(json.dumps({"version": "1.0", "model": model}))
    await counter.prepare((market,))
    assert await counter.count_beside(market.id, "b" * 2 * LONG_CHARACTERS) is None
    assert counter.count(market.id, "a") is None


async def test_a_tokenizer_that_broke_is_used_for_no_endpoint_that_comes_meanwhile() -> None:
    model = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "[UNK]"}
    breaking = json.dumps({"version": "1.0", "model": model})
    counter, market = TokenCounter(), endpoints(breaking, tokenizer("a"), breaking)
    await counter.prepare(market[:1])
    loading = asyncio.create_task(counter.prepare(market))
    await asyncio.sleep(0)
    assert counter.count(market[0].id, "b") is None
    await loading
    assert [counter.count(each.id, "a") for each in market] == [None, 1, None]

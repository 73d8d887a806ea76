"""Who asks Valkey can be cancelled at any moment, even where the client swallows it."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from broker.live.connection import Valkey


async def question(_: Redis) -> int:
    """Swallow a cancellation, as `asyncio.wait_for` does at times."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return 1
    return 2


async def test_a_cancellation_that_the_client_swallows_ends_who_asked() -> None:
    valkey = Valkey("redis://127.0.0.1:1")
    asked = asyncio.create_task(valkey.ask(question, 0))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked


async def test_a_time_limit_over_a_question_ends_it_too() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await Valkey("redis://127.0.0.1:1").ask(question, 0)


async def test_one_who_was_cancelled_before_may_ask_while_it_ends() -> None:
    async def answer(_: Redis) -> int:
        return 3

    async def ending() -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return await Valkey("redis://127.0.0.1:1").ask(answer, 0)
        return 0

    task = asyncio.create_task(ending())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == 3

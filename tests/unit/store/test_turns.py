"""While much is gone through, all others have their turn."""

from __future__ import annotations

import asyncio

from broker.store.turns import TOGETHER, in_turns


async def test_others_have_their_turn_after_so_many() -> None:
    turns: list[int] = []
    gone: list[int] = []

    async def others() -> None:
        while True:
            turns.append(len(gone))
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    async for each in in_turns(range(3 * TOGETHER)):
        gone.append(each)  # noqa: PERF401 - the others are to see how far it is
    beside.cancel()
    assert gone == list(range(3 * TOGETHER))
    assert turns == [TOGETHER, 2 * TOGETHER, 3 * TOGETHER]

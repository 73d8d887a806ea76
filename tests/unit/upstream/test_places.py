"""Places are shared so that those who come late find some, and none is lost."""

from __future__ import annotations

import asyncio
import random

from broker.upstream.places import Places


async def settled() -> None:
    """Let whoever was given a place run."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_the_more_owners_take_their_fill_the_less_that_is() -> None:
    places = Places(stock=16, firsts=0, of_an_owner=8)
    fills = []
    for owner in "abcd":
        taken = 0
        while not places.is_full(owner, is_known=True):
            await places.take(owner, is_known=True)
            taken += 1
        fills.append(taken)
    assert fills == [8, 4, 2, 1]


async def test_who_is_not_known_has_no_right_to_a_first_place() -> None:
    places = Places(stock=0, firsts=1, of_an_owner=8)
    assert places.is_full("stranger", is_known=False)
    await places.take("known", is_known=True)
    assert places.is_full("another", is_known=True)


async def test_the_longest_waiting_is_first_and_owners_take_turns() -> None:
    places = Places(stock=1, firsts=0, of_an_owner=8)
    await places.take("a", is_known=False)
    served: list[str] = []

    async def take(owner: str, name: str) -> None:
        await places.take(owner, is_known=False)
        served.append(name)

    asked = (("b", "b1"), ("b", "b2"), ("c", "c1"), ("c", "c2"))
    waiting = [asyncio.create_task(take(*each)) for each in asked]
    await settled()
    for owner in "abcbc":
        places.leave(owner)
        await settled()
    assert served == ["b1", "c1", "b2", "c2"]
    await asyncio.gather(*waiting)


async def test_whoever_leaves_the_queue_takes_no_place_along() -> None:
    rng = random.Random(7)
    places = Places(stock=3, firsts=2, of_an_owner=3)

    async def work(owner: str) -> None:
        await places.take(owner, is_known=owner < "d")
        try:
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
        finally:
            places.leave(owner)

    for _ in range(200):
        tasks = [asyncio.create_task(work(rng.choice("abcdef"))) for _ in range(12)]
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        for each in rng.sample(tasks, 5):
            each.cancel()
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert (places._stock, places._firsts, places._holdings) == (3, 2, {})

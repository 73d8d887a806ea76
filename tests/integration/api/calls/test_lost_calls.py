"""Why calls went elsewhere: counted once each, told to whom they concern, of nobody else."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from sqlalchemy import event

from broker.flows.providers.count_lost_calls import KEPT_FOR, count_lost_calls, forget_lost_calls
from tests.integration.api.beside import done_beside
from tests.integration.api.conftest import Person, SmallBroker
from tests.integration.api.recourse import a_story, charge, shop

__all__ = ["shop"]

DAY = timedelta(days=1)


async def count(broker: SmallBroker) -> int:
    return await count_lost_calls(broker.engine, broker.clock() + timedelta(seconds=60))


async def told(person: Person, **params: str) -> list[dict[str, Any]]:
    answer = await person.http.get("/api/lost-calls", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()["endpoints"]


async def test_each_provider_is_told_its_own_losses_and_nobody_elses(
    broker: SmallBroker, operator: Person, shop: Person, provider: Person, other_provider: Person
) -> None:
    for number in (0, 0, 1):
        story = a_story(broker, shop, (number, 50.0, 500.0))
        await charge(broker, shop, (number, 100), story=story)
    assert sorted(await asyncio.gather(count(broker), count(broker)))[1] == 3
    assert await count(broker) == 0
    broker.clock = later(broker)
    [mine] = await told(provider)
    assert (mine["endpoint"], mine["served"], mine["outranked"]) == ("acme/law", 2, 1)
    assert sum(mine["reasons"].values()) == mine["refused"] + mine["outranked"] + mine["failed"]
    assert sum(each["calls"] for each in mine["ranks"]) == 1
    [theirs] = await told(other_provider)
    assert (theirs["endpoint"], theirs["served"], theirs["outranked"]) == ("globex/law", 1, 2)
    whole = await provider.http.get("/api/lost-calls")
    assert "globex" not in whole.text
    assert whole.json()["counted_before"] is not None
    assert {each["endpoint"] for each in await told(operator)} == {"acme/law", "globex/law"}
    assert (await shop.http.get("/api/lost-calls")).status_code == 403


def later(broker: SmallBroker) -> Any:
    now = broker.clock
    return lambda: now() + timedelta(minutes=2)


async def test_a_call_is_counted_with_the_hour_in_which_it_ended(
    broker: SmallBroker, shop: Person, provider: Person
) -> None:
    await charge(broker, shop, (0, 100), story=a_story(broker, shop, (0, 50.0, 500.0)))
    await count(broker)
    hour = broker.clock().replace(minute=0, second=0, microsecond=0)
    around = {"from": (hour - timedelta(hours=1)).isoformat()}
    assert (await told(provider, **around, to=(hour + timedelta(hours=2)).isoformat()))[0][
        "served"
    ] == 1
    before = {"from": (hour - timedelta(days=2)).isoformat()}
    assert await told(provider, **before, to=(hour - timedelta(hours=1)).isoformat()) == []
    long = await provider.http.get("/api/lost-calls", params={"from": "2001-01-01T00:00:00Z"})
    assert long.status_code == 400
    first = {"to": "0001-01-01T00:00:00Z"}
    assert await told(provider, **first) == [], "there is no day before the first"


async def test_what_was_counted_long_ago_is_forgotten(
    broker: SmallBroker, shop: Person, provider: Person
) -> None:
    await charge(broker, shop, (0, 100), story=a_story(broker, shop, (0, 50.0, 500.0)))
    await count(broker)
    assert await forget_lost_calls(broker.engine, broker.clock()) == 0
    assert await forget_lost_calls(broker.engine, broker.clock() + KEPT_FOR + DAY) > 0


async def test_a_story_that_cannot_be_read_holds_up_no_other(
    broker: SmallBroker, shop: Person, provider: Person
) -> None:
    await charge(broker, shop, (0, 100), story=b"\xc1 no story")
    await charge(broker, shop, (0, 100), story=a_story(broker, shop, (0, 50.0, 500.0)))
    assert await count(broker) == 2
    broker.clock = later(broker)
    [mine] = await told(provider)
    assert mine["served"] == 1


async def test_what_is_lost_in_a_large_market_is_read_in_parts_and_written_beside_the_calls(
    broker: SmallBroker, shop: Person, operator: Person
) -> None:
    await charge(broker, shop, (0, 100), story=a_story(broker, shop, (0, 50.0, 500.0)))
    await count(broker)
    broker.clock = later(broker)
    in_parts: list[bool] = []

    def note(*asked: Any) -> None:
        if "FROM lost_calls" in asked[2]:
            in_parts.append(asked[1].server_side)

    event.listen(broker.engine.sync_engine, "before_cursor_execute", note)
    with done_beside() as done:
        answer = await operator.http.get("/api/lost-calls")
    event.remove(broker.engine.sync_engine, "before_cursor_execute", note)
    assert in_parts == [True]
    assert answer.json()["endpoints"]
    assert answer.content in done.results()

"""Providers that go away, come back, flap and brown out, one of several, all at once and alone."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from itertools import count
from typing import Any
from uuid import UUID

import msgspec
import pytest

from broker.core import story
from broker.core.health.breaker import EJECTION_S_MAX
from provider_sdk.testing.scripted import Script
from tests.integration.gateway.house import House
from tests.integration.gateway.rack import ANSWER, GOOD, Heard, Trade
from tests.waiting import until

CROWD = [f"p{number}" for number in range(10)]
FAULTY = CROWD[:3]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
SHOWN = [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, IMAGE]}]

WAYS: tuple[dict[str, Any], ...] = (
    {"reset": True},
    {"status": 500},
    {"status": 503},
    {"status": 429, "retry_after_s": 1.0},
    {"status": 404},
    {"stall": True},
    {"cut_after_bytes": 50},
    {"cut_wire_after_bytes": 30, "cut_by_reset": True},
    {"malformed_chunk": True},
    {"malformed_json": True},
    {"wrong_content_type": True},
    {"empty": True},
    {"garbage_mb": 2.0, "malformed_json": True},
    {"cut_wire_after_bytes": 0},
)
"""In which an answer may fail before its first content."""


@pytest.fixture(scope="module")
async def trade(hasty_house: House) -> Trade:
    trade = Trade(hasty_house, await hasty_house.consumer("shop"))
    families = ["pair", "brown", "flap", "half", "down", "odd", "wrong", "seeing", "blind"]
    await trade.enrol(families, "a", "b")
    await trade.enrol(["lone"], "c")
    await trade.enrol(["crowd-1", "crowd-2"], *CROWD)
    return trade


def ways(seed: int) -> dict[str, Any]:
    """A script that is at fault in most of its calls, each time in another way."""
    rng = random.Random(seed)
    acts = [Script()] * 2 + [Script(**each) for each in WAYS]
    played = tuple(
        msgspec.structs.replace(rng.choice(acts), models=GOOD.models) for _ in range(300)
    )
    return {"sequence": played}


@pytest.mark.parametrize("seed", [1, 2])
async def test_with_three_of_ten_at_fault_in_random_ways_every_call_succeeds(
    trade: Trade, seed: int
) -> None:
    family, numbers = f"crowd-{seed}", count()
    for number, each in enumerate(CROWD):
        trade.behave(each, **(ways(seed * 10 + number) if each in FAULTY else {}))
    before = await trade.balance()
    heard: list[Heard] = []

    def faulty_asked() -> int:
        return sum(trade.providers[each].calls for each in FAULTY)

    async def caller() -> None:
        # Who is at fault is soon out, and asked again only now and then.
        while len(heard) < 250 or faulty_asked() <= 5:
            heard.append(await trade.ask(family, stream=next(numbers) % 3 == 0))

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(24):
            group.create_task(caller())
    calls = len(heard)
    assert [each for each in heard if not (each.ended and each.text == ANSWER)] == []
    asked = sum(trade.providers[each].calls for each in CROWD)
    assert asked <= 1.25 * calls, "no storm of retries"
    assert before - await trade.balance() == sum(each.cost for each in heard)
    assert len({each.call_id for each in heard}) == calls
    paid = await trade.paid(family)
    assert sum(paid.values()) == sum(each.cost for each in heard) * 10**9
    late = await _timeouts(trade, {UUID(each.call_id) for each in heard})
    assert sum(late.values()) == calls
    assert late[0] + late[1] >= 0.99 * calls, "whose delay is at most one attempt's"


async def _timeouts(trade: Trade, calls: set[UUID]) -> Counter[int]:
    """How many calls had how many attempts that ran out of time."""
    told: dict[UUID, int] = {}

    async def all_told() -> bool:
        rows = await trade.house.database.fetch("SELECT id, story FROM calls")
        for row in rows:
            if row["id"] in calls:
                attempts = story.decode(row["story"]).attempts
                told[row["id"]] = sum("timeout" in each["outcome"] for each in attempts)
        return len(told) == len(calls)

    await until(all_told)
    return Counter(told.values())


async def _served_by(trade: Trade, family: str, provider: str) -> bool:
    heard = await trade.ask(family, first=provider)
    return heard.endpoint == f"{provider}/{family}"


async def test_an_outage_is_noticed_by_three_calls_and_its_end_by_the_next_probe(
    trade: Trade,
) -> None:
    away = trade.behave("a", status=500)
    trade.behave("b")
    begun_s = time.monotonic()
    heard = [await trade.ask("pair", first="a") for _ in range(20)]
    assert {(each.endpoint, each.text) for each in heard} == {("b/pair", ANSWER)}
    further = (time.monotonic() - begun_s) // EJECTION_S_MAX
    assert away.calls <= 3 + 2 + further, "three failures, and a probe now and then"
    back = trade.behave("a")
    await until(lambda: _served_by(trade, "pair", "a"))
    assert back.calls == 1
    assert await _served_by(trade, "pair", "a"), "one success is enough"


async def test_a_provider_that_mostly_fails_is_left_alone_and_nobody_notices(
    trade: Trade,
) -> None:
    brown = trade.behave("a", status=503, fault_rate=0.7, seed=5)
    trade.behave("b")
    heard = [await trade.ask("brown", first="a") for _ in range(40)]
    assert {(each.status, each.text) for each in heard} == {(200, ANSWER)}
    assert brown.calls <= 20


async def test_a_provider_that_comes_and_goes_costs_no_call_and_no_storm(trade: Trade) -> None:
    both = [trade.behave("b")]
    calls = asked = 0
    for turn in range(6):
        flapping = trade.behave("a", **({"status": 500} if turn % 2 == 0 else {}))
        heard = await asyncio.gather(*(trade.ask("flap", first="a") for _ in range(4)))
        heard += [await trade.ask("flap", first="a") for _ in range(10)]
        assert {(each.status, each.text) for each in heard} == {(200, ANSWER)}
        calls += len(heard)
        asked += flapping.calls
    asked += both[0].calls
    assert asked <= 1.25 * calls


async def test_of_many_calls_at_the_end_of_an_ejection_one_is_the_probe(trade: Trade) -> None:
    away = trade.behave("a", status=500)
    trade.behave("b")
    await asyncio.gather(*(trade.ask("half", first="a") for _ in range(4)))
    assert not await _served_by(trade, "half", "a")
    away = trade.behave("a", stall=True)

    async def probed() -> bool:
        heard = await asyncio.gather(*(trade.ask("half", first="a") for _ in range(12)))
        assert {each.text for each in heard} == {ANSWER}
        return away.calls > 0

    await until(probed)
    assert away.calls == 1


async def test_while_all_are_down_callers_are_told_and_when_one_is_back_it_serves(
    trade: Trade,
) -> None:
    away = [trade.behave(each, status=500) for each in ("a", "b")]
    heard = await asyncio.gather(*(trade.ask("down") for _ in range(10)))
    assert {each.error for each in heard} == {"all_providers_failed"}
    assert {each.status for each in heard} == {502}
    assert sum(each.calls for each in away) <= 4 * 10
    trade.behave("b")
    # Though both were ejected, never all are: no call waits for an ejection to be over.
    heard = [await trade.ask("down") for _ in range(5)]
    assert {(each.endpoint, each.text) for each in heard} == {("b/down", ANSWER)}


async def test_a_lone_provider_is_never_locked_out(trade: Trade) -> None:
    trade.behave("c", status=500)
    for _ in range(3):
        assert (await trade.ask("lone", deadline_s=5)).error == "all_providers_failed"
    trade.behave("c")
    heard = await trade.ask("lone")
    assert (heard.endpoint, heard.text) == ("c/lone", ANSWER)


async def test_a_provider_that_refuses_what_others_serve_is_doubted_and_then_left_alone(
    trade: Trade,
) -> None:
    odd = trade.behave("a", status=400)
    trade.behave("b")
    heard = [await trade.ask("odd", first="a") for _ in range(20)]
    refused = [each for each in heard if each.error == "provider_refused"]
    assert len(refused) <= 4, "the first are believed"
    assert {(each.endpoint, each.text) for each in heard[4:]} == {("b/odd", ANSWER)}
    assert odd.calls < 20, "what others have served counts against it"


async def test_what_every_provider_refuses_is_the_callers_own_fault(trade: Trade) -> None:
    for each in ("a", "b"):
        trade.behave(each, status=422)
    heard = [await trade.ask("wrong", first="a") for _ in range(12)]
    heard += [await trade.ask("wrong", first="b") for _ in range(12)]
    assert {(each.status, each.error) for each in heard} == {(422, "provider_refused")}
    for each in ("a", "b"):
        trade.behave(each)
        assert (await trade.ask("wrong", first=each)).endpoint == f"{each}/wrong"


async def test_an_image_goes_on_to_who_takes_images_and_who_takes_none_is_left_as_it_was(
    trade: Trade,
) -> None:
    refusing = trade.behave("a", status=400)
    trade.behave("b")
    heard = [await trade.ask("seeing", first="a", messages=SHOWN) for _ in range(6)]
    assert {(each.status, each.endpoint) for each in heard} == {(200, "b/seeing")}
    assert refusing.calls == 6, "it was asked each time, for nothing counted against it"
    text = await trade.ask("seeing", first="a")
    assert (text.status, text.error) == (400, "provider_refused"), "what it says of a text is final"


async def test_an_image_that_nobody_takes_is_refused_in_the_last_one_s_words(trade: Trade) -> None:
    providers = [trade.behave(each, status=422) for each in ("a", "b")]
    heard = await trade.ask("blind", messages=SHOWN)
    assert (heard.status, heard.error) == (422, "provider_refused")
    assert [each.calls for each in providers] == [1, 1]

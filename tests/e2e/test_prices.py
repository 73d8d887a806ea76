"""Prices follow the load inside their bands, and nobody pays another price than he was told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pricing.book import Rate
from pricing.money import charge_nanos, parse_rate_micros
from tests.e2e.harness import Floor
from tests.e2e.stall import Stall
from tests.e2e.trade import Told, ask, chat, listen
from tests.waiting import until

pytestmark = pytest.mark.e2e


LISTED = parse_rate_micros("10")


async def history(floor: Floor, name: str) -> list[dict[str, Any]]:
    """The changes of an endpoint's price, oldest first, rates in micro-dollars beside."""
    answer = await floor.http().get("/api/prices/history", params={"endpoint": name})
    changes = answer.raise_for_status().json()["changes"]
    for each in changes:
        each["in"] = parse_rate_micros(each["price"]["price_in_usd"])
        each["out"] = parse_rate_micros(each["price"]["price_out_usd"])
    return list(changes)


def at(version: int, changes: list[dict[str, Any]]) -> dict[str, Any]:
    """The price in a book; until the first book it is the list price."""
    before = {"in": LISTED, "out": LISTED}
    return [before, *(each for each in changes if each["version"] <= version)][-1]


async def test_prices_rise_under_load_and_fall_after_it_and_bind_at_admission(
    common_floor: Floor,
) -> None:
    floor = common_floor
    stall = Stall("scarce", "scarce", price="10", capacity=4)
    await floor.list_stalls(stall)
    client = floor.client(max_retries=0)
    stall.behave(tokens_per_s=40.0)  # 0.2 s a call
    answers: list[Told] = []
    loaded = True

    async def caller() -> None:
        while loaded:
            answers.append(await ask(client, Told(), **chat("scarce")))

    async def risen() -> bool:
        return any(each["out"] > LISTED * 1.04 for each in await history(floor, stall.name))

    async with asyncio.TaskGroup() as group:
        for _ in range(7):
            group.create_task(caller())
        streamed = group.create_task(listen(client, Told(), **chat("scarce")))
        await until(risen)
        loaded = False
    answers.append(streamed.result())
    peak = max(each["out"] for each in await history(floor, stall.name))

    async def fallen() -> bool:
        return bool((await history(floor, stall.name))[-1]["out"] < peak * 0.98)

    await until(fallen)
    changes = await history(floor, stall.name)
    versions = [each["version"] for each in changes]
    assert versions == sorted(set(versions))
    assert all(LISTED / 10 <= each["out"] <= LISTED * 10 for each in changes)
    await _check_charges(floor, stall.name, changes, answers)


async def _check_charges(
    floor: Floor, name: str, changes: list[dict[str, Any]], answers: list[Told]
) -> None:
    lines = {line["call_id"]: line for line in await floor.lines()}
    assert len({told.price_version for told in answers}) > 2, "the price moved between calls"
    for told in answers:
        assert told.call_id is not None
        line = lines[told.call_id]
        assert line["endpoint"] == told.endpoint == name
        assert line["price_version"] == told.price_version
        quoted = at(told.price_version, changes)
        rates = (line["rate_in_micros"], line["rate_out_micros"], line["rate_call_nanos"])
        assert rates == (quoted["in"], quoted["out"], 0)
        picos = Rate(*rates).picos(line["tokens_in"], line["tokens_out"])
        assert line["charge_nanos"] == told.cost_nanos == charge_nanos(picos)


async def test_a_long_call_pays_the_price_at_which_it_began(common_floor: Floor) -> None:
    floor = common_floor
    stall = Stall("early", "early", capacity=1)
    await floor.list_stalls(stall)
    stall.behave(tokens_per_s=100.0, output_tokens=10_000)
    client = floor.client(max_retries=0)
    told = Told()
    first = asyncio.create_task(listen(client, told, **chat("early", max_tokens=10_000)))

    async def dearer() -> bool:
        price = (await floor.market())[stall.name]["price"]["price_out_usd"]
        return told.call_id is not None and parse_rate_micros(price) > parse_rate_micros("10.05")

    try:
        await until(dearer)
    finally:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    assert told.call_id is not None
    await floor.settlement(told.call_id)
    [line] = await floor.lines(told.call_id)
    assert (
        line["price_version"] == told.price_version < (await floor.market())[stall.name]["version"]
    )
    quoted = at(told.price_version, await history(floor, stall.name))
    assert line["rate_out_micros"] == quoted["out"] < parse_rate_micros("10.05")

"""A second endpoint beside a late one: rarely asked, paid only if it serves.

Nothing here hangs on how fast a machine is: a provider that is late waits for a place until the
test gives it one, and calls before anything is late save up for a hedge that is asked for after.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

import httpx
import pytest

from broker.core.health.throttle import APART_S
from broker.core.hedging import SEEN_MIN, SHARE
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.integration.gateway.house import Consumer, House, Stall
from tests.waiting import until

HONEST = Script(models=("upstream-name",))
TEACHES = Script(models=("upstream-name",), latency_ms=1_000 * APART_S)
"""Of answers that are closer to each other, not each is learned from."""
AT_ONCE = 12
"""Calls that are late together."""
MAY_BE_HEDGED: list[str] = []
"""The model of each call that was, of all tests here: they share a broker."""


@dataclass(frozen=True)
class Pair:
    """Two endpoints of one model, asked in this order. How late the first mostly is has been
    learned, and one hedge saved up, for nobody was hedged meanwhile."""

    shop: Consumer
    model: str
    first: ScriptedProvider
    second: ScriptedProvider

    async def ask(
        self, *, hedge: bool = True, stream: bool = False, **more: object
    ) -> httpx.Response:
        MAY_BE_HEDGED.extend([self.model] * hedge)
        wishes = {"hedge": hedge, "providers": {"order": ["acme", "globex"]}} | more
        body = {"model": self.model, "messages": [{"role": "user", "content": "Hi"}]}
        body |= {"max_tokens": 4, "broker": wishes, "stream": stream}
        answer = await self.shop.http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        return answer


async def paired(house: House, shop: Consumer, model: str, *, stream: bool = False) -> Pair:
    names = [f"{provider}/{model}" for provider in ("acme", "globex")]
    await house.enrol(*(Stall(name=each, model=model) for each in names))
    pair = Pair(shop, model, *(house.providers[each] for each in names))
    pair.second.script = HONEST
    for script, count, hedge in ((HONEST, SEEN_MIN, True), (TEACHES, SEEN_MIN + 1, False)):
        pair.first.script = script
        for _ in range(count):
            await pair.ask(hedge=hedge, stream=stream)
    assert pair.second.calls == 0, "before so many answers nothing is late"
    return pair


def waits(status: int = 200) -> Script:
    """Who answers so once it has a place, which is from its next script on."""
    return Script(models=("upstream-name",), status=status, capacity=0)


async def test_who_is_late_is_overtaken_as_often_as_one_call_in_twenty_allows(
    house: House, shop: Consumer
) -> None:
    pair = await paired(house, shop, "crowded")
    pair.first.script = waits()
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(pair.ask()) for _ in range(AT_ONCE)]
        await until(lambda: any(each.done() for each in calls))
        pair.first.script = HONEST
    served = {each.result().headers["x-broker-endpoint"] for each in calls}
    assert "globex/crowded" in served
    await until(lambda: pair.first.cancelled >= 1 and not pair.first.in_flight)
    told = (await house.operator.get("/metrics")).text
    [made] = re.findall(r"^broker_hedges_total ([0-9.]+)$", told, re.MULTILINE)
    assert 1 <= float(made) <= SHARE * len(MAY_BE_HEDGED)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_loser_is_told_of_and_costs_nothing(
    house: House, shop: Consumer, stream: bool
) -> None:
    model = "streamed" if stream else "whole"
    pair = await paired(house, shop, model, stream=stream)
    pair.first.script = waits()
    answer = await pair.ask(stream=stream)
    assert answer.headers["x-broker-endpoint"] == f"globex/{model}"
    story = await house.story(shop, answer.headers["x-broker-call-id"])
    first, second = story["attempts"]
    assert (first["endpoint"], first["outcome"]) == (f"acme/{model}", "caller_left")
    assert first["detail"] == "another answered first"
    assert float(first["charge_usd"]) == 0
    assert (second["endpoint"], second["outcome"]) == (f"globex/{model}", "delivered")
    assert float(second["charge_usd"]) > 0
    assert story["charge_usd"] == second["charge_usd"]
    await until(lambda: pair.first.in_flight == 0)
    assert pair.first.cancelled == 1, "the loser is cancelled"


async def test_a_call_is_logged_where_the_last_went_on_from_a_hedge_that_broke_off(
    house: House, shop: Consumer
) -> None:
    pair = await paired(house, shop, "relayed", stream=True)
    await house.enrol(Stall(name="hooli/relayed", model="relayed"))
    house.providers["hooli/relayed"].script = HONEST
    pair.first.script = waits()
    pair.second.script = Script(models=("upstream-name",), cut_after_chunks=3)
    order = {"order": ["acme", "globex", "hooli"]}
    answer = await pair.ask(stream=True, continue_on_cut=True, providers=order)
    story = await house.story(shop, answer.headers["x-broker-call-id"])
    told = [(each["endpoint"], each["outcome"]) for each in story["attempts"]]
    assert told == [
        ("acme/relayed", "caller_left"),
        ("globex/relayed", "reset"),
        ("hooli/relayed", "delivered"),
    ]
    assert story["endpoint"] == "hooli/relayed"


async def test_whoever_did_not_ask_for_it_is_not_hedged(house: House, shop: Consumer) -> None:
    pair = await paired(house, shop, "patient")
    pair.first.script = waits()
    async with asyncio.TaskGroup() as group:
        patient = group.create_task(pair.ask(hedge=False))
        await until(lambda: pair.first.waiting == 1)
        # Who came after it was late, and hedged: by then it was late as well.
        hasty = await pair.ask()
        assert not patient.done()
        pair.first.script = HONEST
    assert hasty.headers["x-broker-endpoint"] == "globex/patient"
    assert patient.result().headers["x-broker-endpoint"] == "acme/patient"
    assert pair.second.calls == 1


async def test_a_first_that_fails_while_its_hedge_runs_costs_nothing(
    house: House, shop: Consumer
) -> None:
    pair = await paired(house, shop, "failing")
    pair.first.script, pair.second.script = waits(status=500), waits()
    async with asyncio.TaskGroup() as group:
        call = group.create_task(pair.ask())
        await until(lambda: pair.second.waiting == 1)
        finished = pair.first.finished
        pair.first.script = HONEST
        await until(lambda: pair.first.finished == finished + 1)
        pair.second.script = HONEST
    story = await house.story(shop, call.result().headers["x-broker-call-id"])
    outcomes = [each["outcome"] for each in story["attempts"]]
    assert outcomes == ["server_error", "delivered"]
    assert float(story["attempts"][0]["charge_usd"]) == 0

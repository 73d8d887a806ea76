"""A second endpoint beside a late one: faster in the tail, rarely asked, paid only if it serves."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from provider_sdk.testing.scripted import Script
from tests.integration.gateway.house import Consumer, House, Stall, until

USUAL_MS, SLOW_MS = 15.0, 900.0
CALLS, SLOW_EVERY = 200, 40


@pytest.fixture(scope="module", autouse=True)
async def market(house: House) -> None:
    await house.enrol(*(Stall(name=f"{each}/twin", model="twin") for each in ("acme", "globex")))


def behave(house: House, name: str, *, slow_every: int | None = None) -> None:
    usual = Script(models=("upstream-name",), latency_ms=USUAL_MS)
    slow = Script(latency_ms=SLOW_MS)
    tail = (usual,) * ((slow_every or 1) - 1) + (slow,)
    script = usual
    if slow_every is not None:
        script = Script(**_fields(usual) | {"sequence": tail * (CALLS // slow_every)})
    house.providers[name].script = script


def _fields(script: Script) -> dict[str, Any]:
    return {name: getattr(script, name) for name in script.__struct_fields__}


async def ask(shop: Consumer, *, hedge: bool, stream: bool = False) -> httpx.Response:
    wishes = {"hedge": hedge, "providers": {"order": ["acme", "globex"]}}
    body = {"model": "twin", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    return await shop.http.post(
        "/v1/chat/completions", json=body | {"broker": wishes, "stream": stream}
    )


async def took_s(shop: Consumer, count: int, *, hedge: bool) -> list[float]:
    """Make so many calls, a few at a time; return how long each took."""
    times: list[float] = []
    left = iter(range(count))

    async def ask_on() -> None:
        for _ in left:
            begun_s = time.monotonic()
            assert (await ask(shop, hedge=hedge)).status_code == 200
            times.append(time.monotonic() - begun_s)

    await asyncio.gather(*(ask_on() for _ in range(4)))
    return sorted(times)


async def test_most_of_the_tail_is_gone_for_a_twentieth_more_calls(
    house: House, shop: Consumer
) -> None:
    behave(house, "acme/twin")
    behave(house, "globex/twin")
    await took_s(shop, 100, hedge=True)
    behave(house, "acme/twin", slow_every=SLOW_EVERY)
    plain = await took_s(shop, CALLS, hedge=False)
    behave(house, "acme/twin", slow_every=SLOW_EVERY)
    acme, globex = house.providers["acme/twin"], house.providers["globex/twin"]
    cancelled, second = acme.cancelled, globex.calls
    hedged = await took_s(shop, CALLS, hedge=True)
    p99 = int(0.99 * CALLS) - 1
    print(f"p99: {plain[p99] * 1e3:.0f} ms without, {hedged[p99] * 1e3:.0f} ms with hedges")
    slow = [sum(each >= SLOW_MS / 1e3 for each in times) for times in (plain, hedged)]
    assert slow[0] >= CALLS // SLOW_EVERY
    assert slow[1] <= slow[0] // 2
    assert acme.cancelled > cancelled, "the loser is cancelled"
    # What was saved up before counts too.
    assert globex.calls - second <= 0.05 * (CALLS + 100) + 1


@pytest.mark.parametrize("stream", [False, True])
async def test_the_loser_is_told_of_and_costs_nothing(
    house: House, shop: Consumer, stream: bool
) -> None:
    for each in ("acme/twin", "globex/twin"):
        behave(house, each)
    for _ in range(45):
        assert (await ask(shop, hedge=True, stream=stream)).status_code == 200
    behave(house, "acme/twin", slow_every=1)
    answer = await ask(shop, hedge=True, stream=stream)
    assert answer.status_code == 200
    assert answer.headers["x-broker-endpoint"] == "globex/twin"
    story = await house.story(shop, answer.headers["x-broker-call-id"])
    first, second = story["attempts"]
    assert (first["endpoint"], first["outcome"]) == ("acme/twin", "caller_left")
    assert first["detail"] == "another answered first"
    assert float(first["charge_usd"]) == 0
    assert (second["endpoint"], second["outcome"]) == ("globex/twin", "delivered")
    assert float(second["charge_usd"]) > 0
    assert story["charge_usd"] == second["charge_usd"]
    await until(lambda: _left(house))


async def _left(house: House) -> bool:
    return house.providers["acme/twin"].in_flight == 0


async def test_whoever_did_not_ask_for_it_is_not_hedged(house: House, shop: Consumer) -> None:
    for each in ("acme/twin", "globex/twin"):
        behave(house, each)
    behave(house, "acme/twin", slow_every=1)
    second = house.providers["globex/twin"].calls
    answer = await ask(shop, hedge=False)
    assert answer.headers["x-broker-endpoint"] == "acme/twin"
    assert house.providers["globex/twin"].calls == second


async def test_a_first_that_fails_while_its_hedge_runs_costs_nothing(
    house: House, shop: Consumer
) -> None:
    for each in ("acme/twin", "globex/twin"):
        behave(house, each)
    for _ in range(45):
        await ask(shop, hedge=True)
    late = Script(models=("upstream-name",), latency_ms=150.0)
    house.providers["acme/twin"].script = Script(**_fields(late) | {"status": 500})
    house.providers["globex/twin"].script = Script(**_fields(late) | {"latency_ms": 300.0})
    answer = await ask(shop, hedge=True)
    assert answer.status_code == 200
    story = await house.story(shop, answer.headers["x-broker-call-id"])
    outcomes = [each["outcome"] for each in story["attempts"]]
    assert outcomes == ["server_error", "delivered"]

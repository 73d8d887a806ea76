"""A second endpoint beside a late one: faster in the tail, rarely asked, paid only if it serves."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from provider_sdk.testing.scripted import Script
from tests.integration.gateway.house import Consumer, House, Stall, until

USUAL_MS, SLOW_MS = 15.0, 900.0
SLOW_TOKENS = 3
"""Of a slow answer, by which it can be told from others, whatever the clock says."""
CALLS, SLOW_EVERY = 200, 40
LEARNED, LEARNED_MS = 24, 300.0
NEVER_MS = 15_000.0
"""Before that another has answered, however late late is on a busy machine."""


@pytest.fixture(scope="module", autouse=True)
async def market(house: House) -> None:
    await house.enrol(*(Stall(name=f"{each}/twin", model="twin") for each in ("acme", "globex")))


def behave(
    house: House,
    name: str,
    *,
    usual_ms: float = USUAL_MS,
    slow_every: int | None = None,
    slow_ms: float = SLOW_MS,
) -> None:
    usual = Script(models=("upstream-name",), latency_ms=usual_ms)
    slow = Script(latency_ms=slow_ms, output_tokens=SLOW_TOKENS)
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


async def were_late(shop: Consumer, count: int) -> int:
    """Make so many calls, a few at a time; return how many had to wait for a slow answer."""
    late = 0
    left = iter(range(count))

    async def ask_on() -> None:
        nonlocal late
        for _ in left:
            answer = await ask(shop, hedge=True)
            assert answer.status_code == 200
            late += answer.json()["usage"]["completion_tokens"] == SLOW_TOKENS

    await asyncio.gather(*(ask_on() for _ in range(4)))
    return late


async def test_most_of_those_who_are_late_are_overtaken_for_a_twentieth_more_calls(
    house: House, shop: Consumer
) -> None:
    acme, globex = house.providers["acme/twin"], house.providers["globex/twin"]
    # Longer than a busy machine holds an answer up, so that who is late is so by the script.
    behave(house, "acme/twin", usual_ms=LEARNED_MS)
    behave(house, "globex/twin")
    assert await were_late(shop, LEARNED) == 0
    behave(house, "acme/twin", slow_every=SLOW_EVERY, slow_ms=NEVER_MS)
    cancelled, first, second = acme.cancelled, acme.calls, globex.calls
    late, slow = await were_late(shop, CALLS), CALLS // SLOW_EVERY
    assert acme.calls - first == CALLS
    assert late <= slow // 2
    assert acme.cancelled - cancelled >= slow - late, "the loser is cancelled"
    # What was saved up before counts too.
    assert globex.calls - second <= 0.05 * (CALLS + LEARNED) + 1


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

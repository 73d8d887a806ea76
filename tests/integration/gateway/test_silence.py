"""A provider that goes silent loses its calls long before the first of them times out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.core.health.stalls import SEVERAL, late_s
from broker.core.hedging import SEEN_MIN
from broker.flows.calls.watch import EVERY_S
from broker.settings import Limits
from tests.integration.gateway.house import House
from tests.integration.gateway.rack import ANSWER, Trade
from tests.waiting import until

LOOKED_WITHIN_S = 4 * EVERY_S
"""A look that this process comes late to does not count, and calls must have waited long enough."""
BACK_WITHIN_S = 12.0
"""It is five seconds on a machine that has nothing else to do."""
WAYS: dict[str, dict[str, Any]] = {
    "streamed": {"stall": True},
    "begun": {"stall_after_chunks": 0},
}
STUCK = 2 * SEVERAL
SLOW_MS = 3_500.0


@pytest.fixture(scope="module")
async def trade(house: House) -> Trade:
    trade = Trade(house, await house.consumer("shop"))
    await trade.enrol(list(WAYS), "a", "b")
    await trade.enrol(["slow", "new"], "c", "d")
    return trade


async def health(trade: Trade, name: str) -> str:
    listed = (await trade.house.operator.get("/api/prices")).json()["endpoints"]
    return next(each["health"] for each in listed if each["name"] == name)


async def made_known(
    trade: Trade, family: str, provider: str, *, stream: bool = True, latency_ms: float = 100.0
) -> None:
    """Call a provider until it is known how long its answers take: of those that come together only
    one is learned from."""
    trade.behave(provider, latency_ms=latency_ms)

    async def admitted() -> bool:
        heard = await trade.ask(family, stream=stream, first=provider)
        return heard.endpoint == f"{provider}/{family}"

    await until(admitted, BACK_WITHIN_S)
    for _ in range(SEEN_MIN + 6):
        assert await admitted()


async def keeps_its_calls(trade: Trade, family: str, provider: str, *, stream: bool) -> None:
    """Let several answers take seconds, and see that the provider is held for ready."""
    name = f"{provider}/{family}"
    trade.behave(provider, latency_ms=SLOW_MS)
    asks = (trade.ask(family, stream=stream, first=provider) for _ in range(SEVERAL))
    calls = asyncio.gather(*asks)
    while not calls.done():
        assert await health(trade, name) == "ready"
        await asyncio.sleep(0.1)
    assert {(each.status, each.endpoint) for each in await calls} == {(200, name)}


@pytest.mark.parametrize("way", WAYS)
async def test_a_silent_provider_loses_its_calls_before_one_times_out(
    trade: Trade, way: str
) -> None:
    assert Limits().first_byte_s >= 60.0, "no call times out here"
    await made_known(trade, way, "a")
    trade.behave("b")
    away = trade.behave("a", **WAYS[way])

    async def ejected() -> bool:
        return await health(trade, f"a/{way}") == "ejected"

    with capture_logs() as logs:
        asks = (trade.ask(way, stream=True, first="a") for _ in range(STUCK))
        stuck = [asyncio.create_task(each) for each in asks]
        try:
            await until(ejected)
            heard = [await trade.ask(way, stream=True, first="a") for _ in range(5)]
            assert {(each.endpoint, each.text) for each in heard} == {(f"b/{way}", ANSWER)}
            assert away.calls == STUCK
            trade.behave("a")

            async def back() -> bool:
                return (await trade.ask(way, first="a")).endpoint == f"a/{way}"

            await until(back, BACK_WITHIN_S)
        finally:
            for each in stuck:
                each.cancel()
            await asyncio.gather(*stuck, return_exceptions=True)
    told = next(each for each in logs if each["event"] == "a server has gone silent")
    # By what it has learned of this machine; without anything else to do, that is a second.
    assert told["silent_s"] <= late_s(told["tail_s"]) + LOOKED_WITHIN_S
    metrics = (await trade.house.operator.get("/metrics")).text
    assert f"broker_silences_total {1.0 + list(WAYS).index(way)}" in metrics
    assert "broker_answers_kept_bytes 0.0" in metrics
    await trade.balance()


async def test_long_prefills_after_short_ones_are_no_silence(trade: Trade) -> None:
    await made_known(trade, "slow", "c", latency_ms=300.0)
    await keeps_its_calls(trade, "slow", "c", stream=True)


async def test_a_new_and_slow_model_on_the_server_of_a_fast_one_keeps_its_calls(
    trade: Trade,
) -> None:
    await made_known(trade, "slow", "d")
    await keeps_its_calls(trade, "new", "d", stream=True)


async def test_whole_answers_are_not_held_for_late_by_those_that_were_fast(trade: Trade) -> None:
    for stream in (False, True):
        await made_known(trade, "slow", "d", stream=stream)
    await keeps_its_calls(trade, "slow", "d", stream=False)

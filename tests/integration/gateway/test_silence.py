"""A provider that goes silent loses its calls long before the first of them times out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.core.hedging import SEEN_MIN
from broker.core.stalls import FACTOR, LEAST_S, SEVERAL
from broker.flows.watch import EVERY_S
from broker.settings import Limits
from tests.integration.gateway.house import House, until
from tests.integration.gateway.rack import ANSWER, Trade

LOOKED_WITHIN_S = 4 * EVERY_S
"""A look that this process comes late to does not count, and calls must have waited long enough."""
BACK_WITHIN_S = 12.0
"""It is five seconds on a machine that has nothing else to do."""
WAYS: dict[str, dict[str, Any]] = {
    "whole": {"stall": True},
    "streamed": {"stall": True},
    "begun": {"stall_after_chunks": 0},
}
STUCK = 2 * SEVERAL


@pytest.fixture(scope="module")
async def trade(house: House) -> Trade:
    trade = Trade(house, await house.consumer("shop"))
    await trade.enrol(list(WAYS), "a", "b")
    await trade.enrol(["slow"], "c", "d")
    return trade


async def health(trade: Trade, name: str) -> str:
    listed = (await trade.house.operator.get("/api/prices")).json()["endpoints"]
    return next(each["health"] for each in listed if each["name"] == name)


async def made_known(trade: Trade, family: str, provider: str, *, stream: bool) -> None:
    """Call a provider until it is known how long its answers take."""
    trade.behave(provider, latency_ms=30.0)
    for _ in range(SEEN_MIN + 1):
        heard = await trade.ask(family, stream=stream, first=provider)
        assert heard.endpoint == f"{provider}/{family}"


@pytest.mark.parametrize("way", WAYS)
async def test_a_silent_provider_loses_its_calls_before_one_times_out(
    trade: Trade, way: str
) -> None:
    assert Limits().first_byte_s >= 60.0, "no call times out here"
    stream = way != "whole"
    await made_known(trade, way, "a", stream=stream)
    trade.behave("b")
    away = trade.behave("a", **WAYS[way])

    async def ejected() -> bool:
        return await health(trade, f"a/{way}") == "ejected"

    with capture_logs() as logs:
        asks = (trade.ask(way, stream=stream, first="a") for _ in range(STUCK))
        stuck = [asyncio.create_task(each) for each in asks]
        try:
            await until(ejected)
            heard = [await trade.ask(way, stream=stream, first="a") for _ in range(5)]
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
    # By what it has learned of this machine; without anything else to do, that is half a second.
    assert told["silent_s"] <= max(LEAST_S, FACTOR * told["tail_s"]) + LOOKED_WITHIN_S
    metrics = (await trade.house.operator.get("/metrics")).text
    assert f"broker_silences_total {1.0 + list(WAYS).index(way)}" in metrics
    assert "broker_answers_kept_bytes 0.0" in metrics
    await trade.balance()


async def test_a_model_that_takes_its_time_keeps_its_calls(trade: Trade) -> None:
    for each in ("c", "d"):
        trade.behave(each, latency_ms=300.0)
    calls = (trade.ask("slow", first="c") for _ in range(SEEN_MIN + 1))
    heard = await asyncio.gather(*calls)
    trade.behave("c", latency_ms=800.0)
    heard += await asyncio.gather(*(trade.ask("slow", first="c") for _ in range(STUCK)))
    assert {each.endpoint for each in heard} == {"c/slow"}
    assert await health(trade, "c/slow") == "ready"

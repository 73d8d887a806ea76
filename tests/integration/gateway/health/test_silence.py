"""A provider that goes silent loses its calls long before the first of them times out."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.core.health.stalls import SEVERAL, late_s
from broker.core.hedging import SEEN_MIN
from broker.flows.calls.watch import EVERY_S
from broker.settings import Limits
from provider_sdk.testing.scripted import ScriptedProvider
from tests.integration.gateway.house import House
from tests.integration.gateway.rack import ANSWER, Heard, Trade
from tests.waiting import until

LOOKED_WITHIN_S = 4 * EVERY_S
"""Calls must have waited long enough."""
WAYS: dict[str, dict[str, Any]] = {
    "streamed": {"stall": True},
    "begun": {"stall_after_chunks": 0},
}
STUCK = 2 * SEVERAL
LATER = 5
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
    trade: Trade, family: str, provider: str, *, stream: bool = True, latency_ms: float = 40.0
) -> None:
    """Call a provider until it is known how long its answers take: of those that come together only
    one is learned from."""
    trade.behave(provider, latency_ms=latency_ms)

    async def admitted() -> bool:
        heard = await trade.ask(family, stream=stream, first=provider)
        return heard.endpoint == f"{provider}/{family}"

    await until(admitted)
    for _ in range(SEEN_MIN + 2):
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


async def silences(trade: Trade) -> float:
    told = (await trade.house.operator.get("/metrics")).text
    [count] = re.findall(r"^broker_silences_total (\S+)$", told, re.MULTILINE)
    return float(count)


async def note_lateness(late_s: list[float]) -> None:
    """Note by how much this process is late whenever something is due: some looks do not count
    then, and others come later."""
    while True:
        due_s = time.monotonic() + EVERY_S / 5
        await asyncio.sleep(EVERY_S / 5)
        late_s.append(time.monotonic() - due_s)


async def served_by_the_other_but_for_a_probe(
    trade: Trade, way: str, away: ScriptedProvider, waiting: list[asyncio.Task[Heard]]
) -> None:
    """Ask more often; on a slow machine the ejection may be over by then, and one of them goes to
    see, and waits with those that are stuck."""
    asked = [asyncio.create_task(trade.ask(way, stream=True, first="a")) for _ in range(LATER)]
    waiting.extend(asked)

    def under_way() -> list[asyncio.Task[Heard]]:
        return [each for each in asked if not each.done()]

    await until(lambda: len(under_way()) <= 1 and away.calls == STUCK + len(under_way()))
    heard = [each.result() for each in asked if each.done()]
    assert {(each.endpoint, each.text) for each in heard} == {(f"b/{way}", ANSWER)}


@pytest.mark.parametrize("way", WAYS)
async def test_a_silent_provider_loses_its_calls_before_one_times_out(
    trade: Trade, way: str
) -> None:
    assert Limits().first_byte_s >= 60.0, "no call times out here"
    await made_known(trade, way, "a")
    before = await silences(trade)
    trade.behave("b")
    away = trade.behave("a", **WAYS[way])

    async def ejected() -> bool:
        return await health(trade, f"a/{way}") == "ejected"

    process_late_s = list[float]()
    with capture_logs() as logs:
        noting = asyncio.create_task(note_lateness(process_late_s))
        asks = (trade.ask(way, stream=True, first="a") for _ in range(STUCK))
        waiting = [asyncio.create_task(each) for each in asks]
        try:
            await until(ejected)
            noting.cancel()
            await served_by_the_other_but_for_a_probe(trade, way, away, waiting)
            trade.behave("a")

            async def back() -> bool:
                return (await trade.ask(way, first="a")).endpoint == f"a/{way}"

            await until(back)
        finally:
            for each in (noting, *waiting):
                each.cancel()
            await asyncio.gather(noting, *waiting, return_exceptions=True)
    told = next(each for each in logs if each["event"] == "a server has gone silent")
    # By what it has learned of this machine; without anything else to do, that is a second.
    looked_within_s = LOOKED_WITHIN_S + 2 * sum(process_late_s)
    assert told["silent_s"] <= late_s(told["tail_s"]) + looked_within_s
    assert await silences(trade) == before + 1

    async def all_is_let_go() -> bool:
        return "broker_answers_kept_bytes 0.0" in (await trade.house.operator.get("/metrics")).text

    await until(all_is_let_go)
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

"""What `/metrics` tells of calls, of what was done for them, and of what they wait for."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from broker.core.health.durations import BOUNDS_S, Durations
from provider_sdk.testing.scripted import Script
from tests.integration.gateway.house import Consumer, House, Stall
from tests.plain import TRUSTS_NOBODY
from tests.waiting import until

LANES = ("holds", "settlements")


@pytest.fixture(scope="module", autouse=True)
async def market(house: House) -> None:
    await house.enrol(
        Stall(name="acme/frail", model="pair"),
        Stall(name="globex/sound", model="pair"),
        Stall(name="hooli/narrow", model="narrow", capacity=1),
    )


async def counted(house: House) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample by its name and its labels' values."""
    async with httpx.AsyncClient(verify=TRUSTS_NOBODY) as http:
        text = (await http.get(f"{house.url}/metrics")).text
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def ask(shop: Consumer, model: str, **wishes: object) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "broker": wishes}
    return (await shop.http.post("/v1/chat/completions", json=body)).status_code


async def test_calls_retries_shed_calls_and_commits_are_counted(
    house: House, shop: Consumer
) -> None:
    before = await counted(house)
    house.providers["acme/frail"].script = Script(models=("upstream-name",), status=500)
    order = {"order": ["acme", "globex"]}
    assert await ask(shop, "pair", providers=order) == 200
    house.providers["hooli/narrow"].script = Script(models=("upstream-name",), latency_ms=600.0)
    told = await asyncio.gather(*(ask(shop, "narrow") for _ in range(6)))
    refused = told.count(429)
    assert refused >= 1
    after = dict[tuple[str, tuple[str, ...]], float]()

    async def nothing_waits() -> bool:
        after.update(await counted(house))
        return not any(after["broker_ledger_waiting", (lane,)] for lane in LANES)

    await until(nothing_waits)

    def more(name: str, *labels: str) -> float:
        return after[name, labels] - before.get((name, labels), 0.0)

    assert more("broker_calls_answered_total", "openai", "200") == 7 - refused
    assert more("broker_calls_answered_total", "openai", "429") == refused
    assert more("broker_calls_shed_total", "providers_full") == refused
    assert more("broker_retries_total") == 1
    assert after["broker_retries_denied_total", ()] == 0
    assert after["broker_retries_left", ()] > 0
    for lane in LANES:
        assert more("broker_ledger_commit_seconds_count", lane) >= 1
    assert after["broker_ledger_waiting_limit", ()] > 0
    assert after["broker_valkey_reachable", ()] == 1
    assert after["broker_hedges_total", ()] == after["broker_hedges_won_total", ()] == 0
    assert after["broker_continuations_total", ()] == 0
    assert ("broker_breakers", ("here",)) in after


def test_durations_are_counted_below_each_bound() -> None:
    durations = Durations()
    for seconds in (0.0, 0.001, 0.3, 99.0):
        durations.add(seconds)
    told = dict(durations.buckets())
    assert (told["0.001"], told["0.25"], told["0.5"], told["+Inf"]) == (2, 2, 3, 4)
    assert len(told) == len(BOUNDS_S) + 1
    assert durations.sum_s == pytest.approx(99.301)

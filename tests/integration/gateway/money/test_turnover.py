"""What `/metrics` says that calls took and came to is what the books say."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from provider_sdk.testing.scripted import Script
from tests.integration.gateway.house import Consumer, House, Stall
from tests.plain import TRUSTS_NOBODY
from tests.waiting import until

TENSOR = b'{"inputs":[{"name":"INPUT0","shape":[1],"datatype":"FP32","data":[1.0]}]}'
README = Path(__file__).parents[4] / "broker" / "README.md"
CHAT = "/v1/chat/completions"
MONEY = ("charged_usd", "take_usd", "provider_earnings_usd")
Samples = dict[tuple[str, tuple[str, ...]], float]


@pytest.fixture(scope="module", autouse=True)
async def market(house: House) -> None:
    await house.enrol(
        Stall(name="acme/frail", model="pair"),
        Stall(name="globex/sound", model="pair"),
        Stall(name="hooli/dear", model="dear", usd_in="5.00", usd_out="15.00"),
        Stall(name="hooli/torn", model="torn"),
        Stall(name="triton/sums", model="sums", kind="kserve"),
    )
    for name, fault in (("acme/frail", {"status": 500}), ("hooli/torn", {"cut_after_chunks": 3})):
        script = Script(models=("upstream-name",))
        house.providers[name].script = msgspec.structs.replace(script, **fault)


async def scraped(house: House) -> Samples:
    """Every sample by its name and its labels' values."""
    async with httpx.AsyncClient(verify=TRUSTS_NOBODY) as http:
        text = (await http.get(f"{house.url}/metrics")).text
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _ended(samples: Samples) -> dict[tuple[str, str], float]:
    """Calls by outcome and task."""
    return {
        (labels[0], labels[1]): count
        for (name, labels), count in samples.items()
        if name == "broker_call_seconds_count"
    }


async def _make_all_kinds(shop: Consumer) -> str:
    """Make a call of each kind; return the id of one that can be refunded."""
    body = {"model": "pair", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}
    order = {"broker": {"providers": {"order": ["acme", "globex"]}}}
    failed_over = await shop.http.post(CHAT, json=body | order)
    assert failed_over.headers["x-broker-endpoint"] == "globex/sound"
    await shop.http.post(CHAT, json=body | {"stream": True, "model": "globex/sound"})
    torn = await shop.http.post(CHAT, json=body | {"stream": True, "model": "torn"})
    assert "provider_cut_off" in torn.text
    assert (await shop.http.post(CHAT, json=body | {"model": "acme/frail"})).status_code == 502
    assert (await shop.http.post(CHAT, json=body | {"model": "gpt-17"})).status_code == 404
    chain = [{"model": "globex/sound", "keep_from": 0.99}, {"model": "dear", "keep_from": 0.1}]
    cascade = {"cascade": {"policy": "chain", "chain": chain}}
    climbed = await shop.http.post(CHAT, json=body | {"broker": cascade})
    assert climbed.json()["broker"]["answers"] == 2
    vectors = {"model": "globex/sound", "input": "Hi"}
    assert (await shop.http.post("/v1/embeddings", json=vectors)).status_code == 200
    inferred = await shop.http.post("/v2/models/sums/infer", content=TENSOR)
    assert inferred.status_code == 200, inferred.text
    call_id: str = failed_over.headers["x-broker-call-id"]
    return call_id


async def test_money_tokens_and_calls_by_task_are_those_of_the_books_after_all_kinds_of_calls(
    house: House, shop: Consumer
) -> None:
    refundable = await _make_all_kinds(shop)
    reason = {"reason": "as a favour"}
    refunded = await house.operator.post(f"/api/calls/{refundable}/refunds", json=reason)
    assert refunded.status_code == 201, refunded.text
    samples = await scraped(house)
    booked = await house.database.fetch(_BOOKED)
    assert {each["task"] for each in booked} == {"chat", "embedding", "infer"}
    for name, column in zip(MONEY, ("charged", "take", "earnings"), strict=True):
        counted = {
            labels[0]: round(usd * 10**9)
            for (sample, labels), usd in samples.items()
            if sample == f"broker_{name}_total"
        }
        assert counted == {each["task"]: each[column] for each in booked}
    for each in booked:
        for direction in ("in", "out"):
            counted_tokens = samples["broker_tokens_total", (direction, each["task"])]
            assert counted_tokens == each[f"tokens_{direction}"]
    assert samples["broker_tokens_total", ("in", "chat")] > 0
    assert await _stated(shop) == sum(each["charged"] for each in booked)


async def test_what_the_readme_tells_to_watch_is_there(house: House) -> None:
    async with httpx.AsyncClient(verify=TRUSTS_NOBODY) as http:
        text = (await http.get(f"{house.url}/metrics")).text
    there = set[str]()
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE):
        ends = ("", "_bucket", "_count", "_sum") if kind == "histogram" else ("",)
        there.update(name + end for end in ends)
    named = set(re.findall(r"\bbroker_[a-z_]+[a-z]\b", README.read_text()))
    assert "broker_ledger_alarms" in named
    assert named - there == set()


async def _stated(shop: Consumer) -> int:
    """Return what the consumer's statement says that calls cost, in nano-dollars."""
    answer = await shop.http.get("/api/statement/totals", params={"by": "task_label"})
    whole: dict[str, Any] = answer.json()["whole"]
    assert Decimal(whole["credits_usd"]) > 0
    return -int(Decimal(whole["calls_usd"]) * 10**9)


async def test_each_call_is_counted_once_by_how_it_ended_and_how_long_it_took(
    house: House, shop: Consumer
) -> None:
    before = await scraped(house)
    await _make_all_kinds(shop)

    async def are_told() -> bool:
        now, was = _ended(await scraped(house)), _ended(before)
        more = {key: count - was.get(key, 0.0) for key, count in now.items()}
        return more == {
            ("served", "chat"): 3.0,
            ("failed", "chat"): 2.0,
            ("refused", "chat"): 1.0,
            ("served", "embedding"): 1.0,
            ("served", "infer"): 1.0,
        }

    await until(are_told)
    after = await scraped(house)

    def more(name: str, *labels: str) -> float:
        return after[name, labels] - before.get((name, labels), 0.0)

    assert more("broker_first_content_seconds_count", "chat") == 2, "of the streams alone"
    assert more("broker_ledger_wait_seconds_count", "settlements") == 7, "one was refused before"
    held = more("broker_ledger_wait_seconds_count", "holds") + more("broker_holds_ready_total")
    assert held == 7
    assert 0 < more("broker_call_seconds_sum", "served", "chat") < 60
    assert more("broker_call_seconds_bucket", "300.0", "served", "chat") == 3


async def test_money_whose_record_is_lost_is_counted_all_the_same(
    house: House, shop: Consumer
) -> None:
    """As when the database refuses the record alone."""
    await house.database.execute("ALTER TABLE calls ADD CONSTRAINT never CHECK (false) NOT VALID")
    body = {"model": "globex/sound", "messages": [{"role": "user", "content": "Hi"}]}
    try:
        answer = await shop.http.post(CHAT, json=body)
    finally:
        await house.database.execute("ALTER TABLE calls DROP CONSTRAINT never")
    assert answer.status_code == 200, answer.text
    cost_usd = float(answer.headers["x-broker-cost-usd"])
    samples = await scraped(house)
    assert samples["broker_charged_usd_total", ("unrecorded",)] == pytest.approx(cost_usd)


_BOOKED = """
SELECT c.task, sum(s.charge_nanos)::bigint AS charged, sum(l.take)::bigint AS take,
       sum(l.earnings)::bigint AS earnings,
       sum(c.tokens_in)::bigint AS tokens_in, sum(c.tokens_out)::bigint AS tokens_out
FROM calls AS c
LEFT JOIN settlements AS s ON s.call_id = c.id
LEFT JOIN LATERAL (
    SELECT sum(take_nanos) AS take, sum(earnings_nanos) AS earnings
    FROM settlement_lines WHERE call_id = c.id
) AS l ON true
GROUP BY c.task
"""
"""What was settled, by the task of its call."""

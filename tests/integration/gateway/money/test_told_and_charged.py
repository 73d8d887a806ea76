"""Whatever callers ask and providers do, what a call is told to cost is what the books say."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from pricing.money import format_usd
from provider_sdk.testing.scripted import Script
from tests.integration.gateway.house import Consumer, House, Stall
from tests.waiting import until

ROUNDS, AT_ONCE = 8, 8
PROMPTS = ("Hi", "Tell me more. " * 20, "é日本" * 30)
FAULTS: tuple[dict[str, Any], ...] = (
    *({}, {}, {}, {}, {}, {}, {"latency_ms": 40.0}, {"reset": True}, {"empty": True}),
    *({"status": status} for status in (400, 404, 422, 429, 503)),
    *({"cut_after_chunks": chunks} for chunks in range(5)),
    *({"cut_after_bytes": 200}, {"cut_after_chunks": 3, "cut_by_reset": True}),
    *({"usage_factor": 0.0}, {"usage_factor": 100.0}, {"omit_usage": True}, {"omit_done": True}),
    *({"omit_finish_reason": True}, {"malformed_json": True}, {"malformed_sse": True}),
    *({"error_after_chunks": 1}, {"encoding": "gzip"}, {"close_after_answer": True}),
)
CHAIN = [{"model": "small", "keep_from": 0.9}, {"model": "large"}]
CASCADES: tuple[dict[str, Any], ...] = (
    {"policy": "chain", "chain": CHAIN, "pay": "kept"},
    {"policy": "chain", "chain": CHAIN, "agreement": "sample"},
    {"policy": "chain", "chain": CHAIN, "keep_from": 0.9, "below": "refuse"},
    {"policy": "chain", "chain": CHAIN, "decide_after_tokens": 2, "buffer_bytes": 50},
    {"policy": "auto"},
)
WISHES: tuple[dict[str, Any], ...] = (
    *({}, {"hedge": True}, {"continue_on_cut": True}, {"max_cost": "0.0001"}),
    *({"cascade": each} for each in CASCADES),
)
STALLS = (
    Stall(name="acme/a", usd_in="1.37", usd_out="3.11"),
    Stall(name="globex/b", usd_in="0.91", usd_out="2.03"),
    Stall(name="hooli/c", usd_in="0.57", usd_out="7.77"),
    Stall(name="acme/large", model="large", usd_in="10.01", usd_out="30.07"),
)


@pytest.fixture(scope="module", autouse=True)
async def market(house: House) -> None:
    await house.enrol(*STALLS)


def script(lots: Random) -> Script:
    tokens = lots.choice((1, 2, 5, 16, 40))
    return Script(models=("upstream-name",), output_tokens=tokens, **lots.choice(FAULTS))


def request(lots: Random) -> tuple[str, dict[str, Any]]:
    """Return a path and a body."""
    body: dict[str, Any] = {"model": lots.choice(("small", "small", "acme/a", "large", "auto"))}
    if lots.random() < 0.1:
        return "/v1/embeddings", body | {"input": ["a", "b"]}
    body["broker"] = lots.choice(WISHES)
    if lots.random() < 0.6:
        body["max_tokens"] = lots.choice((1, 5, 20, 64))
    if lots.random() < 0.5:
        body |= {"stream": True, "stream_options": {"include_usage": lots.random() < 0.5}}
    if lots.random() < 0.2:
        return "/v1/completions", body | {"prompt": lots.choice((*PROMPTS, ["a", "b"]))}
    messages = [{"role": "user", "content": lots.choice(PROMPTS)}]
    return "/v1/chat/completions", body | {"messages": messages, "n": lots.choice((1, 1, 1, 2))}


def told_usd(answer: httpx.Response) -> str | None:
    """Return what an answer says that its call cost; None where it says nothing of it."""
    for event in reversed(answer.text.split("\n\n")) if _is_stream(answer) else ():
        if event.startswith(": broker "):
            return str(json.loads(event.removeprefix(": broker "))["cost_usd"])
        if event.startswith("data: {"):
            told = json.loads(event.removeprefix("data: "))
            cost = told.get("broker") or told.get("error", {}).get("broker")
            return None if cost is None else str(cost["cost_usd"])
    return answer.headers.get("x-broker-cost-usd")


def _is_stream(answer: httpx.Response) -> bool:
    return bool(answer.headers["content-type"].startswith("text/event-stream"))


async def on_quote(shop: Consumer, body: dict[str, Any]) -> tuple[dict[str, Any], Decimal | None]:
    """Return the body on a quote for it, and the most that this can cost; itself without one."""
    quote = await shop.http.post("/api/quotes", json={"task": "chat", "request": body})
    if quote.status_code != 201:
        return body, None
    ceiling_cost_usd = Decimal(quote.json()["ceiling_cost_usd"])
    return body | {"broker": {"quote_id": quote.json()["quote_id"]}}, ceiling_cost_usd


async def ask(shop: Consumer, lots: Random) -> tuple[httpx.Response, Decimal | None]:
    """Make a call; also return the most that it may cost, where there is such a bound."""
    path, body = request(lots)
    most = body.get("broker", {}).get("max_cost")
    most_usd = None if most is None else Decimal(most)
    if "messages" in body and lots.random() < 0.2:
        body, most_usd = await on_quote(shop, body)
    return await shop.http.post(path, json=body), most_usd


async def settled(house: House, call_id: str) -> asyncpg.Record:
    rows: list[asyncpg.Record] = []

    async def written() -> bool:
        rows[:] = await house.database.fetch(
            "SELECT s.charge_nanos, s.hold_nanos, c.charge_nanos AS recorded_nanos FROM"
            " settlements s JOIN calls c ON c.id = s.call_id WHERE s.call_id = $1",
            UUID(call_id),
        )
        return bool(rows)

    await until(written)
    return rows[0]


async def test_a_call_costs_what_it_is_told_to_cost(house: House) -> None:
    shop, lots, charged = await house.consumer("rich", usd=4_000), Random(5), 0
    for _ in range(ROUNDS):
        for provider in house.providers.values():
            provider.script = script(lots)
        own = [Random(lots.random()) for _ in range(AT_ONCE)]
        for answer, most_usd in await asyncio.gather(*(ask(shop, each) for each in own)):
            told = told_usd(answer)
            if answer.status_code != 200 and '"confidence_too_low"' not in answer.text:
                assert told is None, answer.text
                continue
            row = await settled(house, answer.headers["x-broker-call-id"])
            charge_usd = format_usd(row["charge_nanos"])
            assert told == charge_usd, (answer.request.content, answer.text)
            assert row["recorded_nanos"] == row["charge_nanos"] <= row["hold_nanos"]
            assert most_usd is None or Decimal(charge_usd) <= most_usd, answer.request.content
            charged += row["charge_nanos"] > 0
    assert charged > ROUNDS * AT_ONCE / 3

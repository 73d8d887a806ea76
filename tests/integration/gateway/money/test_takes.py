"""A change of the broker's take holds for calls admitted after it, and never touches one before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from tests.integration.gateway.house import Consumer, House, Stall
from tests.waiting import until

CHAT = {"model": "acme/small", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}


async def ask(shop: Consumer, domain: str | None = None) -> str:
    wishes = {} if domain is None else {"broker": {"domain": domain}}
    answer = await shop.http.post("/v1/chat/completions", json=CHAT | wishes)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-broker-call-id"]


async def take_bps(house: House, call_id: str) -> int:
    """The share of a call's charge that the broker took, as its line tells."""
    line = await house.database.fetchrow(
        "SELECT charge_nanos, take_nanos FROM settlement_lines WHERE call_id = $1", call_id
    )
    return round(10_000 * line["take_nanos"] / line["charge_nanos"])


async def set_plan(house: House, take: int, **changes: Any) -> None:
    tiers = [{"from_usd": "0", "take_bps": take}]
    body = {"tiers": tiers, "reason": "test", **changes}
    answer = await house.operator.post("/api/plans", json=body)
    assert answer.status_code == 201, answer.text


async def settles_at(house: House, shop: Consumer, take: int, domain: str | None = None) -> None:
    """Ask until the newest calls are charged with this take."""

    async def charged() -> bool:
        return await take_bps(house, await ask(shop, domain)) == take

    await until(charged)


async def lines(database: asyncpg.Connection) -> list[asyncpg.Record]:
    rows: list[asyncpg.Record] = await database.fetch(
        "SELECT * FROM settlement_lines ORDER BY call_id"
    )
    return rows


async def test_a_plan_holds_for_calls_admitted_after_it(house: House, shop: Consumer) -> None:
    await house.enrol(Stall(name="acme/small"))
    assert await take_bps(house, await ask(shop)) == 1_000
    before = await lines(house.database)
    await set_plan(house, 2_000, provider="acme")
    await settles_at(house, shop, 2_000)
    await set_plan(house, 500, provider="acme", domain="law")
    await settles_at(house, shop, 500, "law")
    assert await take_bps(house, await ask(shop, "medicine")) == 2_000
    assert (await lines(house.database))[: len(before)] == before


async def test_a_plan_of_the_future_takes_effect_by_itself(house: House, shop: Consumer) -> None:
    at = datetime.now(UTC) + timedelta(seconds=1.5)
    await set_plan(house, 100, provider="acme", valid_from=at.isoformat())
    early = await ask(shop)
    assert datetime.now(UTC) > at or await take_bps(house, early) == 2_000
    await settles_at(house, shop, 100)
    admitted = await house.database.fetch(
        "SELECT uuid_extract_timestamp(call_id) AS at FROM settlement_lines"
        " WHERE take_nanos * 100 <= charge_nanos"
    )
    assert admitted
    assert all(row["at"] >= at - timedelta(milliseconds=1) for row in admitted)

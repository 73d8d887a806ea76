"""A key whose calls come densely: they find holds ready, and are told and charged as any."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from broker.core.key_terms import Rates
from broker.core.money.ahead import WINDOW_S
from broker.store.ledger import release_holds_of
from pricing.money import format_usd
from provider_sdk.testing.scripted import Script
from tests.conftest import broken_invariants
from tests.integration.gateway.house import Consumer, House, Stall
from tests.waiting import until

AT_ONCE = 12
FOR_S = 3 * WINDOW_S
PATIENCE_S = 20.0
"""A busy machine may be too slow at first for calls to come densely."""
BODY = {"model": "acme/small", "max_tokens": 8, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module", autouse=True)
async def market(house: House) -> None:
    script = Script(models=("upstream-name",), output_tokens=4)
    kinds = Stall(name="acme/kinds", model="kinds", kind="kserve", upstream="m-1")
    await house.enrol(Stall(name="acme/small", script=script), kinds)


async def ask_densely(
    shop: Consumer,
    body: dict[str, Any],
    path: str = "/v1/chat/completions",
    refusal: int | None = None,
) -> list[httpx.Response]:
    """Have several callers ask again and again for a while, and until some were refused where some
    are to be; return the answers."""
    answers: list[httpx.Response] = []
    until_s = time.monotonic() + FOR_S

    def goes_on() -> bool:
        refused = refusal is None or any(each.status_code == refusal for each in answers[-50:])
        return time.monotonic() < until_s or not refused

    async def ask() -> None:
        while goes_on():
            answers.append(await shop.http.post(path, json=body))

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    return answers


async def ask_till_ready(
    house: House, shop: Consumer, body: dict[str, Any], path: str = "/v1/chat/completions"
) -> tuple[list[httpx.Response], list[asyncpg.Record]]:
    """Ask densely until several calls have found a hold ready; return the answers, all 200, and
    what the books say of them."""
    answers: list[httpx.Response] = []
    rows: list[asyncpg.Record] = []
    async with asyncio.timeout(PATIENCE_S):
        while sum(map(was_ready, rows)) <= AT_ONCE:
            answers += await ask_densely(shop, body, path)
            assert {each.status_code for each in answers} == {200}, answers[-1].text
            rows = await settled(house, answers)
    return answers, rows


async def settled(house: House, answers: list[httpx.Response]) -> list[asyncpg.Record]:
    """Return what the books and the log say of these calls, in their order, once it is written."""
    ids = [UUID(each.headers["x-broker-call-id"]) for each in answers]
    rows: dict[UUID, asyncpg.Record] = {}

    async def written() -> bool:
        found = await house.database.fetch(
            "SELECT c.id, c.created_at, c.hold_nanos, c.charge_nanos, s.held_at,"
            "       s.hold_nanos AS held_nanos, s.charge_nanos AS captured_nanos"
            "  FROM calls c JOIN settlements s ON s.call_id = c.id WHERE c.id = ANY($1::uuid[])",
            ids,
        )
        rows.update((row["id"], row) for row in found)
        return len(rows) == len(ids)

    await until(written)
    return [rows[each] for each in ids]


def was_ready(row: asyncpg.Record) -> bool:
    """Whether the call's hold was opened before the call had come."""
    return bool(row["held_at"] < row["created_at"])


async def balance(house: House, shop: Consumer) -> tuple[int, int]:
    row = await house.database.fetchrow(
        "SELECT b.posted_nanos, b.held_nanos FROM balances b"
        "  JOIN ledger_accounts l ON l.id = b.ledger_account_id"
        "  JOIN accounts a ON a.id = l.owner_id WHERE a.name = $1",
        shop.name,
    )
    return tuple(row)


async def test_calls_on_holds_that_were_ready_are_told_logged_and_charged_as_any(
    house: House,
) -> None:
    shop = await house.consumer("dense")
    before_nanos, _ = await balance(house, shop)
    answers, rows = await ask_till_ready(house, shop, BODY)
    assert len({row["id"] for row in rows}) == len(answers)
    for answer, row in zip(answers, rows, strict=True):
        told = format_usd(row["charge_nanos"])
        assert Decimal(answer.headers["x-broker-cost-usd"]) == Decimal(told)
        assert row["captured_nanos"] == row["charge_nanos"] > 0
        assert row["held_nanos"] == row["hold_nanos"] >= row["charge_nanos"]
    spent = sum(row["charge_nanos"] for row in rows)
    await until(lambda: _is(house, shop, (before_nanos - spent, 0)))
    last = next(each for each, row in zip(answers, rows, strict=True) if was_ready(row))
    story = await house.story(shop, last.headers["x-broker-call-id"])
    assert story["attempts"][0]["endpoint"] == "acme/small"


async def _is(house: House, shop: Consumer, wanted: tuple[int, int]) -> bool:
    return await balance(house, shop) == wanted


async def test_calls_of_every_kind_find_holds_ready_and_are_charged_what_these_are_for_at_most(
    house: House,
) -> None:
    inputs = [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}]
    again = [{"model": "acme/small", "keep_from": 0.0}, {"model": "acme/small"}]
    kinds: dict[str, tuple[dict[str, Any], str]] = {
        "tensors": ({"inputs": inputs}, "/v2/models/kinds/infer"),
        "stream": (BODY | {"stream": True}, "/v1/chat/completions"),
        "hedged": (BODY | {"broker": {"hedge": True}}, "/v1/chat/completions"),
        "chain": (
            BODY | {"broker": {"cascade": {"policy": "chain", "chain": again}}},
            "/v1/chat/completions",
        ),
    }
    shops = await asyncio.gather(*(house.consumer(kind) for kind in kinds))
    for shop, (body, path) in zip(shops, kinds.values(), strict=True):
        before_nanos, _ = await balance(house, shop)
        _, rows = await ask_till_ready(house, shop, body, path)
        for row in rows:
            assert row["held_nanos"] >= row["captured_nanos"] == row["charge_nanos"] > 0
        spent = sum(row["charge_nanos"] for row in rows)
        await until(partial(_is, house, shop, (before_nanos - spent, 0)))


async def test_calls_that_say_what_they_may_cost_hold_no_more_however_densely_they_come(
    house: House,
) -> None:
    shop = await house.consumer("careful")
    answers = await ask_densely(shop, BODY | {"broker": {"max_cost": "0.001"}})
    rows = await settled(house, answers)
    assert not any(map(was_ready, rows))
    assert len({row["hold_nanos"] for row in rows}) == 1


async def test_calls_under_an_idempotency_key_keep_the_id_that_is_written_with_it(
    house: House,
) -> None:
    shop = await house.consumer("careful-again")
    await ask_densely(shop, BODY)
    headers = {"idempotency-key": "one"}
    first, again = [
        await shop.http.post("/v1/chat/completions", json=BODY, headers=headers) for _ in range(2)
    ]
    assert first.headers["x-broker-call-id"] == again.headers["x-broker-call-id"]
    (row,) = await settled(house, [first])
    assert not was_ready(row)


async def test_calls_refused_for_their_keys_rate_keep_no_hold_that_was_ready(house: House) -> None:
    numbers = itertools.count(1)

    async def some_were_ready() -> bool:
        return await _is_refused_without_waste(house, f"limited-{next(numbers)}")

    await until(some_were_ready)


async def _is_refused_without_waste(house: House, name: str) -> bool:
    """Have calls of a key come until its rate is used up; whether some found a hold ready."""
    shop = await house.consumer(name, rates=Rates(tokens_per_minute=1_000))
    answers = await ask_densely(shop, BODY, refusal=429)
    told = Counter(each.status_code for each in answers)
    assert told[429] > 0
    assert told[200] + told[429] == len(answers)
    refused = [each for each in answers if each.status_code == 429]
    ids = [UUID(each.headers["x-broker-call-id"]) for each in refused]
    wasted = await house.database.fetch("SELECT FROM holds WHERE call_id = ANY($1::uuid[])", ids)
    assert wasted == [], "one that is refused takes no hold that is ready for another"
    spent = [each for each in answers if each.status_code == 200]
    rows = await settled(house, spent)
    charged = sum(row["charge_nanos"] for row in rows)
    posted, _ = await balance(house, shop)
    await until(lambda: _is(house, shop, (posted, 0)))
    assert posted == 5_000_000_000 - charged
    return any(map(was_ready, rows))


async def test_calls_whose_ready_hold_was_taken_from_them_are_told_so_and_cost_nothing(
    house: House,
) -> None:
    numbers = itertools.count(1)

    async def some_were_ready() -> bool:
        return await _is_told_of_gone_holds(house, f"orphan-{next(numbers)}")

    await until(some_were_ready)
    assert await broken_invariants(house.database_url) == []


async def _is_told_of_gone_holds(house: House, name: str) -> bool:
    """Have holds taken from calls that come densely; whether one of these had been ready."""
    shop = await house.consumer(name)
    before_nanos, _ = await balance(house, shop)
    asking = asyncio.create_task(ask_densely(shop, BODY, refusal=503))
    while not asking.done():
        # As a sweep does that takes this process for dead.
        lives = await house.database.fetch("SELECT id FROM broker_processes")
        await release_holds_of(house.database, [row["id"] for row in lives], 1_000)
        await asyncio.sleep(0.02)
    answers = await asking
    gone = [each for each in answers if each.status_code != 200]
    assert {each.json()["error"]["code"] for each in gone} == {"hold_expired"}
    rows = await settled(house, answers)
    told = [each.status_code == 200 for each in answers]
    assert [row["captured_nanos"] > 0 for row in rows] == told
    assert [row["charge_nanos"] for row in rows] == [row["captured_nanos"] for row in rows]
    spent = sum(row["charge_nanos"] for row in rows)
    await until(lambda: _is(house, shop, (before_nanos - spent, 0)))
    # One that was ready is for a little more than what a call opens for itself.
    own_nanos = min(row["held_nanos"] for row in rows)
    gone_nanos = {row["held_nanos"] for row in rows if not row["captured_nanos"]}
    return bool(max(gone_nanos) > own_nanos)

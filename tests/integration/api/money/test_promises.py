"""A promised latency that was missed gives a share back, once, from both who earned."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from broker.flows.money.credit_missed import BATCH_LINES, credit_missed
from tests.integration.api.conftest import Person, SmallBroker
from tests.integration.api.listing import list_endpoints, publish
from tests.integration.api.money.test_refunds import give_back
from tests.integration.api.recourse import Told, a_story, charge, posted, taken
from tests.integration.api.wall import Tell, tell
from tests.integration.catalog.offers import endpoint_offer, offer

__all__ = ["tell"]

FUNDS_NANOS = 1_000_000_000
SHARE_BPS = 1_000
FAST, SLOW = (0, 40.0, 400.0), (0, 60.0, 600.0)
"""An attempt at the first endpoint that keeps both promises, and one that misses both."""


@pytest.fixture
async def shop(
    broker: SmallBroker,
    operator: Person,
    consumer: Person,
    provider: Person,
    other_provider: Person,
) -> Person:
    """A consumer with a dollar; the first of two endpoints promises 50 ms, or 500 ms in all."""
    promise = {"promised_ttft_ms": 50, "promised_latency_ms": 500}
    await list_endpoints(broker, provider.account, endpoint_offer(**promise))
    await list_endpoints(broker, other_provider.account)
    await publish(broker, 1, 1_000_000)
    await operator.http.post("/api/accounts/shop/topups", json={"amount_usd": "1"})
    return consumer


Check = Callable[..., Awaitable[int]]


@pytest.fixture
def check(broker: SmallBroker, tell: Tell) -> Check:
    """Look for what was missed, after an hour or so."""

    async def check(batch_lines: int = BATCH_LINES, **after: float) -> int:
        await tell(datetime.now(UTC) + timedelta(**(after or {"hours": 1, "seconds": 5})))
        return await credit_missed(broker.engine, SHARE_BPS, broker.clock(), batch_lines)

    return check


async def credits_of(person: Person) -> list[dict[str, Any]]:
    return (await person.http.get("/api/credit-notes")).json()["credit_notes"]


@pytest.mark.parametrize(("stream", "words"), [(True, "first token"), (False, "answer")])
async def test_a_missed_promise_gives_back_its_share_once(
    broker: SmallBroker, shop: Person, provider: Person, stream: bool, words: str, check: Check
) -> None:
    for attempt in (FAST, SLOW):
        story = a_story(broker, shop, attempt)
        await charge(broker, shop, (0, 1_005), told=Told(stream=stream), story=story)
    assert sorted(await asyncio.gather(check(), check())) == [0, 1]
    assert await check() == 0
    [note] = await credits_of(shop)
    assert (note["kind"], note["amount_usd"], note["author"]) == (
        "sla_credit",
        "0.0001005",
        "broker",
    )
    assert words in note["reason"]
    async with broker.engine.connect() as connection:
        assert (await posted(connection, shop.account))[
            "funds"
        ] == FUNDS_NANOS - 2_010_000 + 100_500
        assert (await posted(connection, provider.account))["earnings"] == 2 * 904_500 - 90_450
        assert await taken(connection) == 2 * 100_500 - 10_050


async def test_more_calls_than_one_batch_holds_are_credited_in_one_go(
    broker: SmallBroker, shop: Person, check: Check
) -> None:
    for _ in range(3):
        await charge(broker, shop, (0, 1_000), story=a_story(broker, shop, SLOW))
    assert await check(batch_lines=2) == 3


async def test_nothing_is_credited_too_early_nor_without_a_promise(
    broker: SmallBroker, shop: Person, check: Check
) -> None:
    await charge(broker, shop, (0, 1_000), story=a_story(broker, shop, SLOW))
    other = (1, *SLOW[1:])
    await charge(broker, shop, (1, 1_000), story=a_story(broker, shop, other))
    assert await check(minutes=59) == 0
    # A worker whose clock is fast does not come early either.
    assert await credit_missed(broker.engine, SHARE_BPS, broker.clock() + timedelta(days=1)) == 0
    assert await check() == 1
    [note] = await credits_of(shop)
    assert note["lines"][0]["endpoint"] == "acme/law"


async def test_of_several_attempts_the_late_one_alone_gives_back(
    broker: SmallBroker, shop: Person, check: Check
) -> None:
    story = a_story(broker, shop, (1, 60.0, 600.0), SLOW)
    await charge(broker, shop, (1, 500), (0, 300), story=story)
    assert await check() == 1
    [note] = await credits_of(shop)
    assert [(each["attempt"], each["amount_usd"]) for each in note["lines"]] == [(1, "0.00003")]


async def test_what_has_gone_back_already_is_not_credited_again(
    broker: SmallBroker, operator: Person, shop: Person, check: Check
) -> None:
    whole = await charge(broker, shop, (0, 1_000), story=a_story(broker, shop, SLOW))
    most = await charge(broker, shop, (0, 1_000), story=a_story(broker, shop, SLOW))
    await give_back(operator, whole)
    await give_back(operator, most, amount_usd="0.00095")
    assert await check() == 1
    assert (await credits_of(shop))[0]["amount_usd"] == "0.00005"
    async with broker.engine.connect() as connection:
        assert (await posted(connection, shop.account))["funds"] == FUNDS_NANOS


async def test_a_promise_counts_from_when_it_was_made(
    broker: SmallBroker, shop: Person, provider: Person, check: Check
) -> None:
    await list_endpoints(broker, provider.account, endpoint_offer())
    story = a_story(broker, shop, SLOW)
    await charge(broker, shop, (0, 1_000), story=story)
    await list_endpoints(broker, provider.account, endpoint_offer(promised_latency_ms=599))
    await charge(broker, shop, (0, 2_000), story=story)
    assert await check() == 1
    [note] = await credits_of(shop)
    assert note["amount_usd"] == "0.0002"


async def test_an_absurd_promise_is_refused_by_the_name_of_its_field(provider: Person) -> None:
    for promise in (0, -1, 3_600_001, 1.5, "fast"):
        offered = msgspec.to_builtins(offer())
        offered["endpoints"][0]["promised_ttft_ms"] = promise
        answer = await provider.http.post("/api/provider/deployments", json=offered)
        assert answer.status_code == 400
        assert "promised_ttft_ms" in answer.text

"""Prices over HTTP: now, over time, and as they come."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from litestar import Litestar

from broker.api.market.price_texts import PriceTexts
from broker.api.market.prices import LOOK_AGAIN_S
from broker.api.streams import STREAMS_OF_ACCOUNT_MAX
from broker.core.market import Presence
from broker.flows.access.authenticate import Caller
from tests.integration.api.beside import done_beside
from tests.integration.api.conftest import Person, SmallBroker
from tests.integration.api.listing import list_endpoints, publish
from tests.integration.catalog.offers import endpoint_offer
from tests.integration.serving import serving

HIDDEN = endpoint_offer(name="hidden", visible_to=["shop"])


def names(answer: httpx.Response) -> list[str]:
    return [each["name"] for each in answer.json()["endpoints"]]


async def test_prices_tell_rate_band_load_and_health(
    broker: SmallBroker, provider: Person, consumer: Person
) -> None:
    await list_endpoints(broker, provider.account)
    await publish(broker, 7, 250_000)
    broker.pulse.fit(1, 1)
    broker.pulse.in_flight[0] = 1
    answer = (await consumer.http.get("/api/prices")).json()
    assert answer["version"] == 7
    [endpoint] = answer["endpoints"]
    assert endpoint["name"] == "acme/law"
    assert endpoint["price"] == {
        "price_in_usd": "0.25",
        "price_out_usd": "0.50",
        "price_call_usd": "0.00",
    }
    assert endpoint["ceiling"]["price_out_usd"] == "6.00"
    assert (endpoint["load"], endpoint["health"]) == (0.25, "ready")


async def test_prices_are_written_beside_the_calls(
    broker: SmallBroker, provider: Person, consumer: Person
) -> None:
    await list_endpoints(broker, provider.account)
    await publish(broker, 7, 250_000)
    with done_beside() as done:
        answer = await consumer.http.get("/api/prices")
    assert names(answer) == ["acme/law"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.content in done.results()


async def test_health_tells_what_is_away_and_what_has_no_price(
    broker: SmallBroker, provider: Person, consumer: Person
) -> None:
    await list_endpoints(broker, provider.account)
    healths = []
    for version, rate, presence in (
        (1, 100_000, Presence.DRAINING),
        (2, 100_000, Presence.DOWN),
        (3, 0, Presence.READY),
    ):
        await publish(broker, version, rate, presence={0: presence})
        [endpoint] = (await consumer.http.get("/api/prices")).json()["endpoints"]
        healths.append(endpoint["health"])
    assert healths == ["draining", "down", "unpriced"]
    assert endpoint["price"] is None


async def test_a_private_endpoint_is_seen_by_those_listed_its_owner_and_operators(
    broker: SmallBroker,
    provider: Person,
    other_provider: Person,
    consumer: Person,
    other_consumer: Person,
    operator: Person,
) -> None:
    await list_endpoints(broker, provider.account, endpoint_offer(), HIDDEN)
    await publish(broker, 1, 100_000)
    seen = {
        person.account.name: names(await person.http.get("/api/prices"))
        for person in (consumer, provider, operator, other_consumer, other_provider)
    }
    both, public = ["acme/hidden", "acme/law"], ["acme/law"]
    assert seen == {"shop": both, "acme": both, "ops": both, "rival": public, "globex": public}
    path = "/api/prices/history?endpoint=acme/hidden"
    assert (await other_consumer.http.get(path)).status_code == 404
    assert (await other_provider.http.get(path)).status_code == 404
    for person in (consumer, provider, operator):
        assert (await person.http.get(path)).status_code == 200


async def test_history_begins_with_the_price_in_force_and_keeps_to_its_bounds(
    broker: SmallBroker, provider: Person, consumer: Person
) -> None:
    await list_endpoints(broker, provider.account)
    start = datetime.now(UTC) - timedelta(minutes=5)
    for step in range(5):
        await publish(broker, step + 1, 100_000 * (step + 1), start + timedelta(seconds=step))

    async def versions(**params: str) -> list[int]:
        answer = await consumer.http.get(
            "/api/prices/history", params={"endpoint": "acme/law", **params}
        )
        assert answer.status_code == 200, answer.text
        return [each["version"] for each in answer.json()["changes"]]

    def after(seconds: float) -> str:
        return (start + timedelta(seconds=seconds)).isoformat()

    assert await versions() == [1, 2, 3, 4, 5]
    assert await versions(**{"from": after(1.5)}) == [2, 3, 4, 5]
    assert await versions(**{"from": after(1.5), "to": after(4)}) == [2, 3, 4]
    assert await versions(limit="2") == [4, 5]


async def test_history_tells_the_list_price_that_holds_until_the_first_change(
    broker: SmallBroker, provider: Person
) -> None:
    await list_endpoints(broker, provider.account)

    async def told(**params: str) -> list[tuple[int, str]]:
        answer = await provider.http.get(
            "/api/prices/history", params={"endpoint": "acme/law", **params}
        )
        changes = answer.json()["changes"]
        return [(each["version"], each["price"]["price_in_usd"]) for each in changes]

    later = datetime.now(UTC) + timedelta(seconds=5)
    after = (later + timedelta(seconds=1)).isoformat()
    assert await told() == await told(**{"from": after}) == [(0, "0.20")]
    await publish(broker, 3, 250_000, later)
    assert await told() == [(0, "0.20"), (3, "0.25")]
    assert await told(to=later.isoformat()) == [(0, "0.20")]
    assert await told(**{"from": after}) == await told(limit="1") == [(3, "0.25")]


async def test_the_history_of_what_is_not_there_is_404(consumer: Person) -> None:
    answer = await consumer.http.get("/api/prices/history?endpoint=acme/nothing")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def books(lines: AsyncIterator[str]) -> AsyncIterator[dict[str, Any]]:
    async for line in lines:
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


async def test_the_stream_delivers_each_new_book_without_what_is_hidden(
    broker: SmallBroker, api: Litestar, provider: Person, consumer: Person, other_consumer: Person
) -> None:
    await list_endpoints(broker, provider.account, endpoint_offer(), HIDDEN)
    await publish(broker, 1, 100_000)
    headers = {"authorization": f"Bearer {other_consumer.key}"}
    async with asyncio.timeout(30), serving(api) as url, httpx.AsyncClient(timeout=20) as client:
        async with client.stream("GET", f"{url}/api/prices/stream", headers=headers) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["x-broker-version"]
            told = books(answer.aiter_lines())
            first = await anext(told)
            await publish(broker, 2, 300_000)
            second = await anext(told)
        assert (first["version"], second["version"]) == (1, 2)
        assert [each["name"] for each in second["endpoints"]] == ["acme/law"]
        assert second["endpoints"][0]["price"]["price_in_usd"] == "0.30"


def book_of(event: bytes) -> dict[str, Any]:
    """Return what an event tells, which is one line of it."""
    [told] = [each for each in event.splitlines() if each.startswith(b"data: ")]
    book: dict[str, Any] = json.loads(told.removeprefix(b"data: "))
    return book


async def test_what_all_see_alike_of_a_market_is_written_once(
    broker: SmallBroker,
    provider: Person,
    consumer: Person,
    other_consumer: Person,
    other_provider: Person,
    operator: Person,
) -> None:
    await list_endpoints(broker, provider.account, endpoint_offer(), HIDDEN)
    await publish(broker, 1, 100_000)
    callers = [
        Caller(each.account.id, each.account.name, each.account.role)
        for each in (other_consumer, other_provider, consumer, provider, operator)
    ]
    texts = PriceTexts(broker)
    told = await asyncio.gather(*(texts.of(broker.market, each) for each in callers))
    assert told[0] is told[1]
    assert told[2] is told[3] is told[4]
    assert [len(book_of(each)["endpoints"]) for each in told] == [1, 1, 2, 2, 2]
    await publish(broker, 2, 300_000)
    leaving = asyncio.create_task(texts.of(broker.market, callers[0]))
    await asyncio.sleep(0)
    leaving.cancel()
    event = await texts.of(broker.market, callers[1])
    assert event.startswith(b"id: 2\r\nevent: book\r\n")
    assert book_of(event)["version"] == 2


async def test_the_stream_ends_when_the_broker_stops(
    broker: SmallBroker, api: Litestar, consumer: Person
) -> None:
    headers = {"authorization": f"Bearer {consumer.key}"}
    async with (
        asyncio.timeout(30),
        serving(api) as url,
        httpx.AsyncClient(timeout=20) as client,
        client.stream("GET", f"{url}/api/prices/stream", headers=headers) as answer,
    ):
        lines = answer.aiter_lines()
        await anext(lines)
        broker.stopping = True
        rest = [line async for line in lines]
    assert rest[-1] == ""


async def test_the_stream_ends_with_the_key_that_opened_it(
    broker: SmallBroker, api: Litestar, provider: Person, consumer: Person
) -> None:
    await list_endpoints(broker, provider.account)
    await publish(broker, 1, 100_000)
    made = (await consumer.http.post("/api/accounts/shop/keys", json={})).json()
    headers = {"authorization": f"Bearer {made['key']}"}
    ahead_s = [0.0]
    broker.now_s = lambda: time.monotonic() + ahead_s[0]
    async with (
        asyncio.timeout(30),
        serving(api) as url,
        httpx.AsyncClient(timeout=20) as client,
        client.stream("GET", f"{url}/api/prices/stream", headers=headers) as answer,
    ):
        lines = answer.aiter_lines()
        told = books(lines)
        await anext(told)
        ahead_s[0] += LOOK_AGAIN_S
        await publish(broker, 2, 200_000)
        assert (await anext(told))["version"] == 2, "the key is good"
        await consumer.http.delete(f"/api/keys/{made['id']}")
        ahead_s[0] += LOOK_AGAIN_S
        await publish(broker, 3, 300_000)
        rest = [line async for line in lines]
    assert "".join(rest) == ""


async def test_an_account_follows_prices_so_many_times_at_once_and_no_more(
    broker: SmallBroker, api: Litestar, consumer: Person
) -> None:
    headers = {"authorization": f"Bearer {consumer.key}"}
    async with (
        asyncio.timeout(30),
        serving(api) as url,
        httpx.AsyncClient(base_url=url, headers=headers, timeout=20) as client,
        contextlib.AsyncExitStack() as opened,
    ):
        path = "/api/prices/stream"
        for _ in range(STREAMS_OF_ACCOUNT_MAX):
            answer = await opened.enter_async_context(client.stream("GET", path))
            assert answer.status_code == 200
        refused = await client.get(path)
        assert (refused.status_code, refused.json()["code"]) == (429, "streams")
        assert "Your account has 8 streams of prices open" in refused.json()["detail"]
        assert refused.headers["retry-after"] == "10"
        await opened.aclose()
        while (await _status(client, path)) == 429:  # noqa: ASYNC110 - it comes, within the test's limit
            await asyncio.sleep(0.02)


async def test_callers_who_leave_before_their_streams_begin_leave_room_for_others(
    broker: SmallBroker, api: Litestar, consumer: Person
) -> None:
    path = "/api/prices/stream"
    head = f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {consumer.key}\r\n\r\n"
    headers = {"authorization": f"Bearer {consumer.key}"}
    gc.disable()  # it would come by sooner or later
    try:
        async with (
            asyncio.timeout(30),
            serving(api) as url,
            httpx.AsyncClient(base_url=url, headers=headers, timeout=20) as client,
        ):
            for _ in range(STREAMS_OF_ACCOUNT_MAX):
                with socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as wire:
                    wire.sendall(head.encode())
            while (await _status(client, path)) == 429:  # noqa: ASYNC110 - it comes, within the test's limit
                await asyncio.sleep(0.02)
    finally:
        gc.enable()


async def _status(client: httpx.AsyncClient, path: str) -> int:
    async with client.stream("GET", path) as answer:
        return answer.status_code


async def test_the_stream_asks_for_a_key_as_everything_does(stranger: httpx.AsyncClient) -> None:
    assert (await stranger.get("/api/prices/stream")).status_code == 401

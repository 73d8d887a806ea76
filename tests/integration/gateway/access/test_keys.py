"""What limits a key, at the doors of two brokers on one database and one Valkey."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from broker.core.key_terms import Allowance, Rates, Scope
from broker.embedded.valkey import EmbeddedValkey
from broker.store.access.accounts import Role
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.integration.gateway.house import Consumer, House, Stall, open_house
from tests.waiting import until

MESSAGES = [{"role": "user", "content": "hello"}]
CHAT = "/v1/chat/completions"
GOOD = Script(models=("upstream-name",))
TENSOR = b'{"inputs":[{"name":"INPUT0","shape":[1],"datatype":"FP32","data":[1.0]}]}'


@pytest.fixture(scope="module")
async def twin(house: House, valkey_server: EmbeddedValkey) -> AsyncIterator[House]:
    """Another broker on the same database and Valkey."""
    async with open_house(house.database_url, valkey_server.url) as twin:
        yield twin


@pytest.fixture(scope="module", autouse=True)
async def market(house: House) -> None:
    await house.enrol(
        Stall(name="acme/small"),
        Stall(name="globex/small"),
        Stall(name="lexis/law", model="law", endpoint={"domains": {"law": 0.9}}),
        Stall(name="acme/topic", model="topic", kind="kserve"),
    )


@pytest.fixture(autouse=True)
async def healed(house: House, market: None) -> None:
    for name, provider in house.providers.items():
        if name != "acme/topic":
            provider.script = GOOD
        provider.received.clear()
        provider.calls = 0


async def _ask(http: httpx.AsyncClient, model: str = "auto", **changes: Any) -> httpx.Response:
    body = {"model": model, "messages": MESSAGES, "max_tokens": 16} | changes
    return await http.post(CHAT, json=body)


def _told(answer: httpx.Response) -> tuple[int, str | None]:
    code = None if answer.status_code == 200 else answer.json()["error"]["code"]
    return answer.status_code, code


async def _both(house: House, twin: House, **terms: Any) -> tuple[Consumer, httpx.AsyncClient]:
    """A new key of the account `shop`, known to both brokers; and a client of the second."""
    shop = await house.consumer("shop", **terms)
    there = twin.client(shop.key)
    await until(lambda: _is_known(there))
    return shop, there


async def _is_known(http: httpx.AsyncClient) -> bool:
    return (await http.get("/v1/models")).status_code == 200


async def test_a_key_that_may_only_read_is_refused_at_both_doors(house: House) -> None:
    await house.consumer("shop")
    http = house.client(await house.key("shop", Role.CONSUMER, scopes=frozenset({Scope.READ})))
    await until(lambda: _is_no_stranger(http))
    assert _told(await _ask(http)) == (403, "scope_missing")
    refused = await http.post("/v2/models/topic/infer", content=TENSOR)
    assert refused.status_code == 403
    assert refused.json()["error"].endswith("[scope_missing]")
    assert (await http.get("/api/balance")).status_code == 200


async def _is_no_stranger(http: httpx.AsyncClient) -> bool:
    return (await http.get("/v1/models")).status_code == 403


async def test_another_model_is_refused_by_name_and_auto_is_narrowed(house: House) -> None:
    only = Allowance(models=frozenset({"globex/small", "topic"}), providers=None)
    shop = await house.consumer("shop", allowance=only)
    assert _told(await _ask(shop.http, "law")) == (403, "model_not_allowed")
    assert _told(await _ask(shop.http, "acme/small")) == (403, "model_not_allowed")
    for model in ("auto", "small", "globex/small"):
        answers = [await _ask(shop.http, model) for _ in range(3)]
        assert {each.headers["x-broker-endpoint"] for each in answers} == {"globex/small"}
    listed = (await shop.http.get("/v1/models")).json()["data"]
    names = {each["id"] for each in listed}
    assert names == {"auto", "small", "globex/small", "topic", "acme/topic"}
    assert house.providers["acme/small"].calls == 0
    story = await house.story(shop, answers[0].headers["x-broker-call-id"])
    assert story["requirements"]["models_only"] == ["globex/small", "topic"]


async def test_the_doors_of_tensors_keep_to_the_lists_too(house: House) -> None:
    shop = await house.consumer("shop", allowance=Allowance(providers=frozenset({"globex"})))
    refused = await shop.http.post("/v2/models/acme--topic/infer", content=TENSOR)
    assert refused.status_code == 403
    assert "[provider_not_allowed]" in refused.json()["error"]
    assert (await shop.http.get("/v2/models/acme--topic/ready")).status_code == 403
    assert (await shop.http.get("/v2/models/topic/ready")).status_code == 404


async def test_a_key_for_one_domain_is_about_that_and_nothing_else(house: House) -> None:
    shop = await house.consumer("shop", allowance=Allowance(domains=frozenset({"law"})))
    refused = await _ask(shop.http, broker={"domain": "medicine"})
    assert _told(refused) == (403, "domain_not_allowed")
    served = await _ask(shop.http, broker={"weights": {"domain_fit": 1}})
    assert served.headers["x-broker-endpoint"] == "lexis/law"
    story = await house.story(shop, served.headers["x-broker-call-id"])
    assert story["domain"] == "law"


async def test_requests_in_a_minute_are_counted_over_both_brokers(
    house: House, twin: House
) -> None:
    shop, there = await _both(house, twin, rates=Rates(requests_per_minute=6))
    answers = await asyncio.gather(*(_ask(http) for _ in range(12) for http in (shop.http, there)))
    told = Counter(map(_told, answers))
    flowed = told[200, None] - 6
    assert 0 <= flowed <= 2, "one flows in each ten seconds"
    assert told[429, "key_rate"] == 24 - told[200, None]
    refused = next(each for each in answers if each.status_code == 429)
    assert 1 <= int(refused.headers["retry-after"]) <= 10
    assert "x-should-retry" not in refused.headers
    assert "6 requests" in refused.json()["error"]["message"]


async def test_tokens_that_a_call_leaves_over_come_back_whatever_becomes_of_it(
    house: House,
) -> None:
    shop = await house.consumer("shop", rates=Rates(tokens_per_minute=1_000))
    large = {"max_tokens": 700}
    # Each may use most of the minute: they fit one after the other, for each uses little.
    assert _told(await _ask(shop.http, "acme/small", **large)) == (200, None)
    assert _told(await _ask(shop.http, "acme/small", stream=True, **large)) == (200, None)
    assert _told(await _ask(shop.http, "nobody/none", **large)) == (404, "model_not_found")
    house.providers["acme/small"].script = Script(models=("upstream-name",), status=422)
    assert _told(await _ask(shop.http, "acme/small", **large)) == (422, "provider_refused")
    house.providers["acme/small"].script = GOOD
    await until(lambda: _is_served(shop.http, large))


async def _is_served(http: httpx.AsyncClient, changes: dict[str, Any]) -> bool:
    return (await _ask(http, "acme/small", **changes)).status_code == 200


async def test_tokens_under_way_are_taken(house: House) -> None:
    shop = await house.consumer("shop", rates=Rates(tokens_per_minute=1_000))
    slow = msgspec.structs.replace(GOOD, latency_ms=300.0)
    house.providers["acme/small"].script = slow
    large = {"max_tokens": 700}
    answers = await asyncio.gather(*(_ask(shop.http, "acme/small", **large) for _ in range(5)))
    assert Counter(map(_told, answers)) == {(200, None): 1, (429, "key_rate"): 4}
    refused = next(each for each in answers if each.status_code == 429)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert house.providers["acme/small"].calls == 1


async def test_a_call_that_never_fits_is_refused_for_good(house: House) -> None:
    shop = await house.consumer("shop", rates=Rates(tokens_per_minute=1_000))
    refused = await _ask(shop.http, "acme/small", max_tokens=2_000)
    assert _told(refused) == (429, "key_rate")
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.headers
    story = await house.story(shop, refused.headers["x-broker-call-id"])
    assert (story["code"], story["hold_usd"], story["attempts"]) == ("key_rate", "0.00", [])


async def test_a_revoked_key_is_dead_at_both_brokers(house: House, twin: House) -> None:
    shop, there = await _both(house, twin)
    for http in (shop.http, there):
        assert (await _ask(http)).status_code == 200
    gone = await house.operator.delete(f"/api/keys/{shop.key.split('_')[1]}")
    assert gone.status_code == 204
    for http in (shop.http, there):
        await until(lambda http=http: _is_dead(http))


async def test_a_rotated_key_opens_both_brokers_with_both_secrets_until_it_is_ended(
    house: House, twin: House
) -> None:
    shop, there = await _both(house, twin)
    place = f"/api/keys/{shop.key.split('_')[1]}/rotate"
    rotated = await shop.http.post(place, json={"overlap_s": 600})
    newer = [each.client(rotated.json()["key"]) for each in (house, twin)]
    for http in (*newer, shop.http, there):
        await until(lambda http=http: _is_known(http))
    await newer[0].post(place, json={"overlap_s": 0})
    for http in (*newer, shop.http, there):
        await until(lambda http=http: _is_dead(http))


async def test_a_key_opens_calls_as_soon_as_it_is_shown(house: House) -> None:
    shop = await house.consumer("shop")
    for _ in range(3):
        made = (await shop.http.post("/api/accounts/shop/keys", json={})).json()
        assert await _is_known(house.client(made["key"]))
        place = f"/api/keys/{made['id']}/rotate"
        rotated = (await shop.http.post(place, json={"overlap_s": 0})).json()
        assert await _is_known(house.client(rotated["key"]))


async def _is_dead(http: httpx.AsyncClient) -> bool:
    return _told(await _ask(http)) == (401, "invalid_api_key")


async def test_a_key_that_is_revoked_while_its_request_still_comes_buys_nothing(
    house: House, market: None
) -> None:
    shop = await house.consumer("shop")
    provider: ScriptedProvider = house.providers["acme/small"]
    body = msgspec.json.encode({"model": "acme/small", "messages": MESSAGES})
    revoked = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:10]
        await revoked.wait()
        yield body[10:]

    sending = asyncio.create_task(
        shop.http.post(CHAT, content=slowly(), headers={"content-type": "application/json"})
    )
    other = house.client(shop.key)
    assert (await _ask(other)).status_code == 200
    await house.operator.delete(f"/api/keys/{shop.key.split('_')[1]}")
    await until(lambda: _is_dead(other))
    provider.calls = 0
    revoked.set()
    assert _told(await sending) == (401, "invalid_api_key")
    assert provider.calls == 0

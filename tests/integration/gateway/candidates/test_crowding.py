"""Many endpoints on one server are one server: to who divides calls, and to who fails over."""

from __future__ import annotations

import msgspec
import pytest

from broker.store.access.accounts import Role
from provider_sdk.client import BrokerClient
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.integration.gateway.house import Consumer, House, Stall

CLONES = 12
CALLS = 60
CHAT = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


@pytest.fixture(scope="module")
async def crowd(house: House) -> ScriptedProvider:
    """A server under twelve names, a little cheaper than the one beside it."""
    await house.enrol(Stall(name="honest/chat"))
    stall = Stall(name="crowd/c0", usd_out="1.49")
    script = Script(models=(stall.upstream,))
    scripted = await house.closing.enter_async_context(ScriptedProvider(script))
    offer = stall.offer(scripted.url)
    clones = [msgspec.structs.replace(offer.endpoints[0], name=f"c{at}") for at in range(CLONES)]
    async with BrokerClient(house.url, await house.key("crowd", Role.PROVIDER)) as client:
        registered = await client.register(msgspec.structs.replace(offer, endpoints=clones))
        scripted.script = msgspec.structs.replace(script, nonce=registered.nonce)
        verified = await client.verify(registered.deployment_id)
    assert verified.status == "listed", verified.reports
    await house.priced("crowd/c0", f"crowd/c{CLONES - 1}", "honest/chat")
    scripted.calls = 0
    return scripted


async def ask(shop: Consumer) -> tuple[int, str | None]:
    answer = await shop.http.post("/v1/chat/completions", json=CHAT)
    return answer.status_code, answer.headers.get("x-broker-endpoint")


async def test_a_server_under_many_names_gets_no_more_than_its_share(
    shop: Consumer, crowd: ScriptedProvider
) -> None:
    served = [(await ask(shop))[1] for _ in range(CALLS)]
    assert CALLS * 0.25 < served.count("honest/chat") < CALLS * 0.75


async def test_where_a_server_under_many_names_breaks_no_call_fails(
    shop: Consumer, crowd: ScriptedProvider
) -> None:
    """Each name's breaker is still to open: a plan of nobody else would fail call after call."""
    crowd.script = msgspec.structs.replace(crowd.script, reset=True)
    assert {await ask(shop) for _ in range(CALLS)} == {(200, "honest/chat")}
    assert crowd.calls > 0

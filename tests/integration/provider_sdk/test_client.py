"""The client turns the broker's answers into values and its refusals into one error."""

from __future__ import annotations

import re

import pytest

from provider_sdk.client import BrokerClient, BrokerRefused, BrokerUnreachable
from provider_sdk.exchange import Exchange
from provider_sdk.listener import Listener
from provider_sdk.protocol import Heartbeat, HeartbeatBatch
from provider_sdk.signing import sign
from provider_sdk.testing.broker import FakeBroker
from provider_sdk.testing.scripted import ScriptedProvider
from tests.integration.provider_sdk.offers import fronted


async def test_register_verify_and_heartbeat_answer(
    broker: FakeBroker, provider: ScriptedProvider
) -> None:
    offer = fronted(provider.url).offer()
    async with BrokerClient(broker.url + "/", broker.key) as client:
        registered = await client.register(offer)
        assert (registered.status, registered.heartbeat_interval_ms) == ("unproven", 40)
        assert broker.registrations == [offer]
        again = await client.register(offer)
        assert again == registered
        verified = await client.verify(registered.deployment_id)
        assert verified.status == "failed"
        assert "/.well-known/model-broker" in verified.reports[0].detail
        beat = Heartbeat(
            deployment_id=registered.deployment_id, sequence=1, sent_at_ms=0, status="ready"
        )
        batch = HeartbeatBatch(heartbeats=[sign(beat, registered.signing_key)])
        reply = await client.heartbeat(batch)
        assert [r.reason for r in reply.results] == ["clock_skew"]


async def test_a_refusal_speaks_in_the_brokers_words(
    broker: FakeBroker, provider: ScriptedProvider
) -> None:
    async with BrokerClient(broker.url, "bk_wrong") as client:
        with pytest.raises(BrokerRefused, match=r"^This key is not known\.$") as refused:
            await client.register(fronted(provider.url).offer())
    assert (refused.value.status, refused.value.code) == (401, "unauthorized")
    async with BrokerClient(broker.url, broker.key) as client:
        with pytest.raises(BrokerRefused, match="there is no"):
            await client.verify("no/such")


async def test_a_broker_that_is_away_is_unreachable(broker: FakeBroker) -> None:
    broker.away = "refuse"
    async with BrokerClient(broker.url, broker.key) as client:
        with pytest.raises(BrokerUnreachable, match=r"127\.0\.0\.1"):
            await client.verify("d")


@pytest.mark.parametrize(
    ("status", "body"), [(502, b"<html>bad gateway</html>"), (404, b"?"), (200, b"{}")]
)
async def test_an_answer_that_no_broker_gives_is_no_answer(status: int, body: bytes) -> None:
    async def somebody_else(exchange: Exchange) -> None:
        await exchange.answer(status, body)

    async with (
        Listener(somebody_else) as listener,
        BrokerClient(f"http://127.0.0.1:{listener.port}", "bk") as client,
    ):
        hint = "answered 404: is that a broker?" if status == 404 else "answer"
        with pytest.raises(BrokerUnreachable, match=re.escape(hint)):
            await client.verify("d")

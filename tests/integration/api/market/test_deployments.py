"""Providers bring deployments to the market over HTTP, with nothing but the wire messages."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
from sqlalchemy import event

from broker.live.sheet import Beat
from broker.store.market.deployments import ROWS_AT_ONCE
from provider_sdk.protocol import Heartbeat, HeartbeatReply, Registered, SignedHeartbeat, Verified
from provider_sdk.signing import sign
from provider_sdk.testing.script import Script
from provider_sdk.testing.scripted import ScriptedProvider
from tests.integration.api.beside import done_beside
from tests.integration.api.conftest import Person, SmallBroker, Stage, Standing
from tests.integration.catalog.offers import endpoint_offer, offer
from tests.integration.serving import serving

DEPLOYMENTS = "/api/provider/deployments"
HEARTBEATS = "/api/provider/heartbeats"
MADE_UP = "00000000-0000-7000-8000-000000000000"


@pytest.fixture
async def server() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider(Script(models=("tiny-law",))) as server:
        yield server


async def register(person: Person, **changes: Any) -> Registered:
    body = msgspec.json.encode(offer(**changes))
    headers = {"content-type": "application/json"}
    answer = await person.http.post(DEPLOYMENTS, content=body, headers=headers)
    assert answer.status_code == 201, answer.text
    return msgspec.json.decode(answer.content, type=Registered)


async def verify(person: Person, registered: Registered) -> Verified:
    answer = await person.http.post(f"{DEPLOYMENTS}/{registered.deployment_id}/verify")
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=Verified)


async def test_a_deployment_is_registered_proved_listed_and_withdrawn(
    provider: Person, server: ScriptedProvider
) -> None:
    registered = await register(provider, url=server.url)
    assert registered.status == "unproven"
    failed = await verify(provider, registered)
    assert failed.status == "failed"
    assert not failed.reports[0].ok
    server.script = msgspec.structs.replace(server.script, nonce=registered.nonce)
    listed = await verify(provider, registered)
    assert (listed.status, [each for each in listed.reports if not each.ok]) == ("listed", [])
    [shown] = (await provider.http.get(DEPLOYMENTS)).json()["deployments"]
    assert (shown["id"], shown["status"]) == (registered.deployment_id, "listed")
    path = f"{DEPLOYMENTS}/{registered.deployment_id}"
    assert [(await provider.http.delete(path)).status_code for _ in range(2)] == [204, 204]
    [shown] = (await provider.http.get(DEPLOYMENTS)).json()["deployments"]
    assert shown["status"] == "withdrawn"


async def test_of_who_is_listed_and_not_heard_it_is_told_that_calls_pass_it_by(
    broker: SmallBroker, provider: Person, operator: Person, server: ScriptedProvider
) -> None:
    registered = await register(provider, url=server.url)
    server.script = msgspec.structs.replace(server.script, nonce=registered.nonce)
    await broker.live.beats.load()

    async def absent() -> list[str | None]:
        lists = [await provider.http.get(DEPLOYMENTS), await operator.http.get("/api/deployments")]
        return [each["absent"] for told in lists for each in told.json()["deployments"]]

    assert await absent() == [None, None], "it is not listed"
    await verify(provider, registered)
    assert await absent() == ["no heartbeat yet"] * 2
    beat = Beat(UUID(registered.deployment_id), 1, "ready", 600_000)
    assert await broker.live.beats.accept([beat]) == [True]
    assert await absent() == [None, None]


async def test_registering_again_changes_nothing(provider: Person) -> None:
    assert await register(provider) == await register(provider)


async def test_a_mere_credential_waits_for_an_operator(
    provider: Person, operator: Person, server: ScriptedProvider
) -> None:
    server.script = msgspec.structs.replace(server.script, api_key="upstream-secret")
    registered = await register(
        provider, url=server.url, proof="credential", credential="upstream-secret"
    )
    assert (await verify(provider, registered)).status == "awaiting_approval"
    awaiting = await operator.http.get("/api/deployments")
    assert [each["status"] for each in awaiting.json()["deployments"]] == ["awaiting_approval"]
    assert "upstream-secret" not in awaiting.text
    approve = f"/api/deployments/{registered.deployment_id}/approve"
    assert (await operator.http.post(approve)).status_code == 204
    assert (await verify(provider, registered)).status == "listed"
    assert (await provider.http.delete(approve.removesuffix("/approve"))).status_code == 403
    assert (await operator.http.delete(approve.removesuffix("/approve"))).status_code == 204
    assert (await provider.http.get(DEPLOYMENTS)).json()["deployments"][0]["status"] == "withdrawn"
    unneeded = await operator.http.post(f"/api/deployments/{MADE_UP}/approve")
    assert unneeded.status_code == 404


async def test_the_deployment_of_another_is_not_found(
    provider: Person, other_provider: Person
) -> None:
    theirs = (await register(provider)).deployment_id
    answers = [
        await other_provider.http.post(f"{DEPLOYMENTS}/{theirs}/verify"),
        await other_provider.http.delete(f"{DEPLOYMENTS}/{theirs}"),
        await other_provider.http.delete(f"{DEPLOYMENTS}/{MADE_UP}"),
        await other_provider.http.delete(f"{DEPLOYMENTS}/nonsense"),
    ]
    assert [each.status_code for each in answers] == [404] * 4
    assert (await other_provider.http.get(DEPLOYMENTS)).json() == {"deployments": []}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"capacity": 0}, "capacity"),
        ({"colour": "red"}, "colour"),
        ({"endpoints": []}, "endpoints"),
        ({"name": "No Way"}, "name"),
        ({"url": "ftp://x"}, "url"),
        ({"protocol": 2}, "protocol"),
    ],
)
async def test_a_faulty_offer_is_refused_with_the_field_named(
    standing: Standing, change: dict[str, object], field: str
) -> None:
    body = msgspec.to_builtins(offer()) | change
    answer = await standing.provider.http.post(DEPLOYMENTS, json=body)
    assert answer.status_code == 400
    assert field in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "member", "why"),
    [
        (DEPLOYMENTS, "endpoints", "endpoints[0].name: is missing"),
        (HEARTBEATS, "heartbeats", "more parts"),
        ("/api/provider/receipts", "receipts", "more parts"),
        ("/api/webhooks", "kinds", "more parts"),
    ],
)
async def test_a_list_of_next_to_nothing_is_refused_before_it_is_made(
    standing: Standing, path: str, member: str, why: str
) -> None:
    answer = await standing.provider.http.post(
        path,
        content=b'{"%b":[%b{}]}' % (member.encode(), b"{}," * 300_000),
        headers={"content-type": "application/json"},
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "request_malformed")
    assert why in answer.json()["detail"]


async def test_a_long_offer_is_read_beside_the_calls(provider: Person) -> None:
    long = '{"model":{"type":"WordLevel","vocab":{"a":0}},"x":[%s0]}' % ("[]," * 400_000)
    offered = offer(endpoints=[endpoint_offer(tokenizer_json=long)])
    with done_beside() as done:
        answer = await provider.http.post(DEPLOYMENTS, json=msgspec.to_builtins(offered))
    assert answer.status_code == 201
    assert offered in done.results(), "and nothing is made of it twice"


async def test_deployments_are_read_in_parts_and_written_beside_the_calls(
    stage: Stage, operator: Person, provider: Person
) -> None:
    await register(provider)
    at_once: list[object] = []

    def note(*told: Any) -> None:
        if "FROM deployments" in told[2]:
            at_once.append(told[4].execution_options.get("yield_per"))

    event.listen(stage.engine.sync_engine, "before_cursor_execute", note)
    with done_beside() as done:
        answer = await operator.http.get("/api/deployments")
    event.remove(stage.engine.sync_engine, "before_cursor_execute", note)
    assert answer.content in done.results()
    assert [each["name"] for each in answer.json()["deployments"]] == ["gpu1"]
    assert at_once == [ROWS_AT_ONCE]


async def test_a_large_body_without_room_is_a_problem_like_any_other(stage: Stage) -> None:
    async with serving(stage.api, 70_000) as origin, httpx.AsyncClient(base_url=origin) as stranger:
        headers = {"content-type": "application/json"}
        answer = await stranger.post(HEARTBEATS, content=b" " * 500_000, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    assert answer.headers["retry-after"] == "1"


def heartbeat(registered: Registered, sequence: int) -> SignedHeartbeat:
    beat = Heartbeat(
        deployment_id=registered.deployment_id,
        sequence=sequence,
        sent_at_ms=int(time.time() * 1_000),
        status="ready",
    )
    return sign(beat, registered.signing_key)


async def beat(client: httpx.AsyncClient, *beats: SignedHeartbeat) -> HeartbeatReply:
    body = {"protocol": 1, "heartbeats": msgspec.to_builtins(list(beats))}
    answer = await client.post(HEARTBEATS, json=body)
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=HeartbeatReply)


async def test_a_signed_heartbeat_needs_no_key_and_is_taken_once(
    provider: Person, stranger: httpx.AsyncClient
) -> None:
    signed = heartbeat(await register(provider), 1)
    first = await beat(stranger, signed)
    assert [(each.accepted, each.reason) for each in first.results] == [(True, "")]
    assert first.interval_ms == 1_000
    again = await beat(stranger, signed)
    assert [(each.accepted, each.reason) for each in again.results] == [(False, "replayed")]


async def test_each_heartbeat_of_a_batch_is_judged_alone(
    provider: Person, stranger: httpx.AsyncClient
) -> None:
    registered = await register(provider)
    good = heartbeat(registered, 2)
    forged = msgspec.structs.replace(good, signature="00" * 32)
    unknown = msgspec.structs.replace(good, deployment_id=MADE_UP)
    reply = await beat(stranger, forged, unknown, good)
    assert [(each.reason, each.register_again) for each in reply.results] == [
        ("bad_signature", False),
        ("unknown_deployment", True),
        ("", False),
    ]


async def test_a_malformed_batch_and_one_too_large_are_refused(
    stranger: httpx.AsyncClient,
) -> None:
    for body in ({}, {"protocol": 1, "heartbeats": []}, {"protocol": 2, "heartbeats": [1]}):
        answer = await stranger.post(HEARTBEATS, json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "request_malformed")
    large = await stranger.post(
        HEARTBEATS, content=b" " * (9 << 20), headers={"content-type": "application/json"}
    )
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")

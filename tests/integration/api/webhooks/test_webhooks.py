"""Webhooks over HTTP: made, tried out, renewed, replayed and ended by their owners alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import event

from broker.store.webhooks.events import ROWS_AT_ONCE
from tests.integration.api.beside import done_beside
from tests.integration.api.conftest import Person, SmallBroker, Standing
from tests.integration.webhooks.target import BROKEN, Target
from tests.integration.webhooks.target import target as a_target

TOPUP = {"amount_usd": "12.50", "reason": "first"}


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    async with a_target() as made:
        yield made


async def make(person: Person, url: str, *kinds: str, **headers: str) -> dict[str, Any]:
    answer = await person.http.post(
        "/api/webhooks", json={"url": url, "kinds": kinds or ["*"]}, headers=headers
    )
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_the_secret_of_a_webhook_is_shown_once(
    broker: SmallBroker, consumer: Person, operator: Person, target: Target
) -> None:
    made = await make(consumer, target.url, "refund.*", "refund.*")
    assert made["secret"].startswith("whsec_")
    assert made["kinds"] == ["refund.*"]
    [shown] = (await consumer.http.get("/api/webhooks")).json()["webhooks"]
    assert "secret" not in shown
    assert (shown["status"], shown["waiting"]) == ("enabled", 0)
    log = (await operator.http.get("/api/audit", params={"action": "add_webhook"})).json()
    [entry] = log["entries"]
    assert entry["object"] == f"webhooks/{made['id']}"
    assert made["secret"] not in str(entry)


async def test_a_webhook_made_again_under_its_key_is_the_same_with_its_secret(
    consumer: Person, target: Target
) -> None:
    made = [await make(consumer, target.url, **{"idempotency-key": "w1"}) for _ in "ab"]
    assert made[0] == made[1]
    assert len((await consumer.http.get("/api/webhooks")).json()["webhooks"]) == 1


async def test_a_ping_is_sent_at_once_and_not_too_often(consumer: Person, target: Target) -> None:
    made = await make(consumer, target.url)
    target.answers = lambda _: BROKEN
    pinged = await consumer.http.post(f"/api/webhooks/{made['id']}/ping")
    assert pinged.status_code == 200
    assert pinged.json() | {"took_ms": 0} == {
        "status": 500,
        "fault": "bad_status",
        "detail": "it answered 500",
        "took_ms": 0,
    }
    assert target.got[0].event["kind"] == "webhook.ping"
    again = await consumer.http.post(f"/api/webhooks/{made['id']}/ping")
    assert (again.status_code, again.json()["code"]) == (429, "pinged_just_now")


async def test_a_webhook_of_another_is_not_there(
    consumer: Person, other_consumer: Person, operator: Person, target: Target
) -> None:
    made = await make(consumer, target.url)
    path = f"/api/webhooks/{made['id']}"
    for stranger in (other_consumer, operator):
        assert (await stranger.http.get("/api/webhooks")).json() == {"webhooks": []}
        answers = [
            await stranger.http.get(f"{path}/deliveries"),
            await stranger.http.post(f"{path}/ping"),
            await stranger.http.post(f"{path}/enable"),
            await stranger.http.post(f"{path}/rotate", json={}),
            await stranger.http.post(f"{path}/replay", json={"from": "2030-01-01T00:00:00Z"}),
            await stranger.http.delete(path),
        ]
        assert {each.status_code for each in answers} == {404}
    assert (await consumer.http.delete(path)).status_code == 204
    assert (await consumer.http.get("/api/webhooks")).json() == {"webhooks": []}


async def test_a_rotated_secret_is_another(consumer: Person, target: Target) -> None:
    made = await make(consumer, target.url)
    path = f"/api/webhooks/{made['id']}/rotate"
    rotated = (await consumer.http.post(path, json={"overlap_s": 60})).json()
    assert rotated["secret"] != made["secret"]
    assert rotated["former_secret_until"] is not None
    assert (await consumer.http.post(path, json={"overlap_s": 10**9})).status_code == 400
    other = await make(consumer, target.url)
    as_usual = await consumer.http.post(f"/api/webhooks/{other['id']}/rotate")
    assert as_usual.status_code == 201, "a body is not needed"


async def test_a_topup_is_an_event_that_can_be_listed_and_replayed(
    operator: Person, consumer: Person, other_consumer: Person, target: Target
) -> None:
    made = await make(consumer, target.url)
    await operator.http.post("/api/accounts/shop/topups", json=TOPUP)
    [event] = (await consumer.http.get("/api/events")).json()["events"]
    assert (event["kind"], event["data"]["amount_usd"]) == ("topup.posted", "12.50")
    assert (await other_consumer.http.get("/api/events")).json()["events"] == []
    assert len((await operator.http.get("/api/events")).json()["events"]) == 1
    none = await consumer.http.get("/api/events", params={"kind": "refund.posted"})
    assert none.json()["events"] == []
    path = f"/api/webhooks/{made['id']}"
    replayed = await consumer.http.post(f"{path}/replay", json={"event_id": event["id"]})
    assert (replayed.status_code, replayed.json()["events"]) == (202, 1)
    [waiting] = (await consumer.http.get(f"{path}/deliveries?state=waiting")).json()["deliveries"]
    assert waiting["event_id"] == event["id"]
    assert (await consumer.http.get("/api/webhooks")).json()["webhooks"][0]["waiting"] == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "request_malformed"),
        ({"event_id": "00000000-0000-7000-8000-000000000000"}, 404, "not_found"),
        ({"from": "2001-01-01T00:00:00Z"}, 400, "replay_too_far_back"),
    ],
)
async def test_a_senseless_replay_is_refused_by_name(
    consumer: Person, target: Target, body: dict[str, str], status: int, code: str
) -> None:
    made = await make(consumer, target.url)
    answer = await consumer.http.post(f"/api/webhooks/{made['id']}/replay", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"url": "https://10.0.0.1/"}, "webhook_address_refused"),
        ({"url": "http://93.184.216.34/"}, "https_required"),
        ({"url": "nonsense"}, "webhook_url_malformed"),
        ({"kinds": ["nonsense"]}, "kinds_malformed"),
    ],
)
async def test_a_senseless_webhook_is_refused_by_name(
    standing: Standing, target: Target, body: dict[str, Any], code: str
) -> None:
    whole = {"url": target.url, "kinds": ["*"]} | body
    answer = await standing.consumer.http.post("/api/webhooks", json=whole)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


async def test_events_are_read_in_small_parts_and_written_beside_the_calls(
    broker: SmallBroker, operator: Person
) -> None:
    at_once: list[object] = []

    def note(*told: Any) -> None:
        if "FROM events" in told[2]:
            at_once.append(told[4].execution_options.get("yield_per"))

    event.listen(broker.engine.sync_engine, "before_cursor_execute", note)
    with done_beside() as done:
        answer = await operator.http.get("/api/events")
    event.remove(broker.engine.sync_engine, "before_cursor_execute", note)
    assert answer.content in done.results()
    assert at_once == [ROWS_AT_ONCE]

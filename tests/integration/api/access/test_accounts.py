"""Accounts and keys over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import event

from broker.store.access.audit import ROWS_AT_ONCE
from tests.integration.api.beside import done_beside
from tests.integration.api.conftest import Person, SmallBroker


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_an_operator_opens_an_account_and_finds_it_listed(operator: Person) -> None:
    opened = await operator.http.post("/api/accounts", json={"name": "shop", "role": "consumer"})
    assert opened.status_code == 201
    listed = await operator.http.get("/api/accounts", params={"role": "consumer"})
    assert listed.status_code == 200
    assert listed.json() == {"accounts": [opened.json()], "cursor": None}


async def test_a_taken_name_is_a_conflict_and_a_bad_one_is_refused(operator: Person) -> None:
    taken = await operator.http.post("/api/accounts", json={"name": "ops", "role": "consumer"})
    assert (taken.status_code, taken.json()["code"]) == (409, "conflict")
    bad = await operator.http.post("/api/accounts", json={"name": "No Way", "role": "consumer"})
    assert (bad.status_code, bad.json()["code"]) == (400, "request_malformed")


async def test_accounts_are_listed_page_by_page(
    operator: Person, consumer: Person, provider: Person
) -> None:
    seen, cursor = [], None
    while True:
        params = {"limit": 1} | ({"cursor": cursor} if cursor else {})
        page = (await operator.http.get("/api/accounts", params=params)).json()
        seen += [each["name"] for each in page["accounts"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert seen == ["ops", "shop", "acme"]


async def test_a_key_is_shown_once_and_works_at_once(operator: Person, consumer: Person) -> None:
    made = await operator.http.post("/api/accounts/shop/keys", json={"label": "laptop"})
    assert made.status_code == 201
    key = made.json()["key"]
    assert key.startswith(f"bk_{made.json()['id']}_")
    assert (await consumer.http.get("/api/balance", headers=bearer(key))).status_code == 200
    listed = await operator.http.get("/api/accounts/shop/keys")
    assert listed.json()["keys"][0]["label"] == "laptop"
    assert key.split("_")[2] not in listed.text


async def test_a_revoked_key_opens_nothing_any_more(consumer: Person) -> None:
    made = (await consumer.http.post("/api/accounts/shop/keys", json={})).json()
    assert (await consumer.http.delete(f"/api/keys/{made['id']}")).status_code == 204
    refused = await consumer.http.get("/api/balance", headers=bearer(made["key"]))
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_api_key")
    assert refused.headers["www-authenticate"] == "Bearer"


async def test_an_expired_key_opens_nothing(operator: Person, consumer: Person) -> None:
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    refused = await operator.http.post("/api/accounts/shop/keys", json={"expires_at": past})
    assert (refused.status_code, refused.json()["code"]) == (400, "request_malformed")


async def test_a_key_cannot_free_itself_of_its_limits(operator: Person, consumer: Person) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    terms = {"calls_max": 2, "expires_at": soon}
    limited = (await operator.http.post("/api/accounts/shop/keys", json=terms)).json()["key"]
    for wish in ({}, {"calls_max": 3, "expires_at": soon}, {"calls_max": 2}):
        refused = await consumer.http.post(
            "/api/accounts/shop/keys", json=wish, headers=bearer(limited)
        )
        assert (refused.status_code, refused.json()["code"]) == (403, "not_allowed")
    granted = await consumer.http.post(
        "/api/accounts/shop/keys", json=terms, headers=bearer(limited)
    )
    assert granted.status_code == 201


async def test_the_keys_of_others_are_not_found(consumer: Person, other_consumer: Person) -> None:
    theirs = other_consumer.key.split("_")[1]
    answers = [
        await consumer.http.get("/api/accounts/rival/keys"),
        await consumer.http.post("/api/accounts/rival/keys", json={}),
        await consumer.http.delete(f"/api/keys/{theirs}"),
        await consumer.http.delete("/api/keys/nosuchkey"),
    ]
    assert [each.status_code for each in answers] == [404] * 4
    assert (await other_consumer.http.get("/api/balance")).status_code == 200


async def test_no_key_and_a_wrong_key_are_401(
    stranger: httpx.AsyncClient, consumer: Person
) -> None:
    wrong = consumer.key[:-1] + ("a" if consumer.key[-1] != "a" else "b")
    for headers in ({}, bearer(wrong), bearer("sk-123"), {"authorization": "Basic abc"}):
        answer = await stranger.get("/api/balance", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"


async def test_what_an_operator_does_is_in_the_audit_log(
    operator: Person, consumer: Person
) -> None:
    made = (await operator.http.post("/api/accounts/shop/keys", json={"label": "x"})).json()
    entries = (await operator.http.get("/api/audit")).json()["entries"]
    assert entries[0]["author"] == "ops"
    assert entries[0]["action"] == "issue_key"
    assert entries[0]["object"] == f"keys/{made['id']}"
    assert made["key"].split("_")[2] not in str(entries)


async def test_the_audit_log_is_read_in_small_parts_and_written_beside_the_calls(
    broker: SmallBroker, operator: Person
) -> None:
    at_once: list[object] = []

    def note(*told: Any) -> None:
        if "FROM audit_log" in told[2]:
            at_once.append(told[4].execution_options.get("yield_per"))

    event.listen(broker.engine.sync_engine, "before_cursor_execute", note)
    with done_beside() as done:
        answer = await operator.http.get("/api/audit")
    event.remove(broker.engine.sync_engine, "before_cursor_execute", note)
    assert answer.content in done.results()
    assert at_once == [ROWS_AT_ONCE]

"""Top-ups, balances and statements over HTTP."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.api.conftest import Person, SmallBroker, Standing
from tests.integration.api.listing import list_endpoints, publish
from tests.integration.api.sales import hold_only, sell

TOPUP = {"amount_usd": "12.50", "reason": "first"}


async def available(person: Person) -> str:
    return str((await person.http.get("/api/balance")).json()["available_usd"])


async def test_a_topup_is_on_the_balance_the_statement_and_in_the_audit_log(
    operator: Person, consumer: Person
) -> None:
    answer = await operator.http.post("/api/accounts/shop/topups", json=TOPUP)
    assert answer.status_code == 201
    expected = {"posted_usd": "12.50", "held_usd": "0.00", "available_usd": "12.50"}
    assert answer.json() == expected
    assert (await consumer.http.get("/api/balance")).json() == expected
    [entry] = (await consumer.http.get("/api/statement")).json()["entries"]
    assert (entry["kind"], entry["amount_usd"], entry["reason"]) == ("topup", "12.50", "first")
    deeds = (await operator.http.get("/api/audit")).json()["entries"]
    assert deeds[0]["object"] == "accounts/shop"


@pytest.mark.parametrize("amount", ["-1", "0", "1e3", "NaN", "1.0000000001", "", "9999999999"])
async def test_an_absurd_amount_is_refused(standing: Standing, amount: str) -> None:
    asked = {"amount_usd": amount}
    answer = await standing.operator.http.post("/api/accounts/shop/topups", json=asked)
    assert answer.status_code == 400, answer.text
    assert await available(standing.consumer) == "0.00"


async def test_who_has_no_funds_gets_no_topup(standing: Standing) -> None:
    answers = [
        await standing.operator.http.post(f"/api/accounts/{name}/topups", json=TOPUP)
        for name in ("acme", "ops", "nobody")
    ]
    assert [each.status_code for each in answers] == [400, 404, 404]


async def test_a_topup_sent_again_under_its_key_is_done_once(
    operator: Person, consumer: Person
) -> None:
    headers = {"idempotency-key": "order-1"}
    first = await operator.http.post("/api/accounts/shop/topups", json=TOPUP, headers=headers)
    again = await operator.http.post("/api/accounts/shop/topups", json=TOPUP, headers=headers)
    assert "x-broker-replayed" not in first.headers
    assert again.headers["x-broker-replayed"] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert await available(consumer) == "12.50"


async def test_one_key_for_two_requests_is_a_conflict(
    operator: Person, consumer: Person, other_consumer: Person
) -> None:
    headers = {"idempotency-key": "order-1"}
    await operator.http.post("/api/accounts/shop/topups", json=TOPUP, headers=headers)
    for path, body in (("shop", TOPUP | {"amount_usd": "13"}), ("rival", TOPUP)):
        answer = await operator.http.post(
            f"/api/accounts/{path}/topups", json=body, headers=headers
        )
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_conflict")
    assert await available(consumer) == "12.50"
    assert await available(other_consumer) == "0.00"


async def test_a_failed_topup_leaves_its_key_free(operator: Person, consumer: Person) -> None:
    headers = {"idempotency-key": "order-1"}
    bad = await operator.http.post(
        "/api/accounts/shop/topups", json={"amount_usd": "0"}, headers=headers
    )
    good = await operator.http.post("/api/accounts/shop/topups", json=TOPUP, headers=headers)
    assert (bad.status_code, good.status_code) == (400, 201)
    assert await available(consumer) == "12.50"


async def test_of_a_topup_sent_ten_times_at_once_one_is_done(
    operator: Person, consumer: Person
) -> None:
    headers = {"idempotency-key": "order-1"}
    answers = await asyncio.gather(
        *(
            operator.http.post("/api/accounts/shop/topups", json=TOPUP, headers=headers)
            for _ in range(10)
        )
    )
    assert {each.status_code for each in answers} == {201}
    replayed = [each for each in answers if "x-broker-replayed" in each.headers]
    assert len(replayed) == 9
    assert len({each.content for each in answers}) == 1
    assert await available(consumer) == "12.50"


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_an_idempotency_key_has_1_to_255_characters(standing: Standing, key: str) -> None:
    answer = await standing.operator.http.post(
        "/api/accounts/shop/topups", json=TOPUP, headers={"idempotency-key": key}
    )
    assert answer.status_code == 400
    assert "idempotency" in answer.text.lower()


async def test_a_statement_folds_to_the_balance_for_both_sides(
    broker: SmallBroker, operator: Person, consumer: Person, provider: Person
) -> None:
    await list_endpoints(broker, provider.account)
    await publish(broker, 1, 1_000_000)
    await operator.http.post("/api/accounts/shop/topups", json=TOPUP)
    call_id = str(await sell(broker, consumer))
    await hold_only(broker, consumer)
    entries = (await consumer.http.get("/api/statement")).json()["entries"]
    assert [(each["kind"], each["amount_usd"]) for each in entries] == [
        ("charge", "-0.002"),
        ("topup", "12.50"),
    ]
    assert entries[0]["source"] == call_id
    assert (await consumer.http.get("/api/balance")).json() == {
        "posted_usd": "12.498",
        "held_usd": "0.005",
        "available_usd": "12.493",
    }
    [earning] = (await provider.http.get("/api/statement")).json()["entries"]
    assert (earning["kind"], earning["amount_usd"]) == ("earning", "0.0018")
    assert (await provider.http.get("/api/balance")).json() == {
        "posted_usd": "0.0018",
        "held_usd": "0.0018",
        "available_usd": "0.00",
    }
    for purse, count in {"pending": 1, "available": 0, "in_transit": 0, "owed": 0}.items():
        answer = await provider.http.get("/api/statement", params={"purse": purse})
        assert len(answer.json()["entries"]) == count
    refused = await consumer.http.get("/api/statement?purse=pending")
    assert (refused.status_code, refused.json()["code"]) == (400, "request_malformed")


async def test_a_statement_is_read_page_by_page_and_within_bounds(
    operator: Person, consumer: Person
) -> None:
    for number in range(5):
        body = {"amount_usd": "1", "reason": str(number)}
        await operator.http.post("/api/accounts/shop/topups", json=body)
    whole = (await consumer.http.get("/api/statement")).json()["entries"]
    assert [each["reason"] for each in whole] == ["4", "3", "2", "1", "0"]
    pages, cursor = [], None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await consumer.http.get("/api/statement", params=params)).json()
        pages += page["entries"]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert pages == whole
    bounds = {"from": whole[3]["at"], "to": whole[1]["at"]}
    within = (await consumer.http.get("/api/statement", params=bounds)).json()["entries"]
    assert [each["reason"] for each in within] == ["2", "1"]
    forged = await consumer.http.get("/api/statement", params={"cursor": "nonsense"})
    assert (forged.status_code, forged.json()["code"]) == (400, "request_malformed")


async def test_the_books_are_checked_and_an_alarm_is_told(
    broker: SmallBroker, operator: Person, consumer: Person
) -> None:
    fine = await operator.http.get("/api/ledger/check?replay=true")
    assert fine.json() == {"ok": True, "alarms": []}
    async with broker.engine.begin() as connection:
        spoil = "UPDATE balances SET posted_nanos = posted_nanos + 5 WHERE ledger_account_id = "
        await connection.exec_driver_sql(f"{spoil}'{consumer.account.ledger_account}'")
    spoilt = (await operator.http.get("/api/ledger/check")).json()
    assert not spoilt["ok"]
    assert "invariant_balance_is_its_entries" in {each["view"] for each in spoilt["alarms"]}
    async with broker.engine.begin() as connection:
        await connection.exec_driver_sql(
            "UPDATE balances SET posted_nanos = posted_nanos - 5 WHERE ledger_account_id = "
            f"'{consumer.account.ledger_account}'"
        )

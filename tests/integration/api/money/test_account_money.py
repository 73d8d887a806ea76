"""Operators look into any account's money as its owner does."""

from __future__ import annotations

import httpx
import pytest

from tests.integration.api.conftest import Person, SmallBroker
from tests.integration.api.listing import list_endpoints, publish
from tests.integration.api.sales import sell


async def test_an_operator_is_told_what_the_owner_is_told(
    broker: SmallBroker, operator: Person, consumer: Person, provider: Person
) -> None:
    await list_endpoints(broker, provider.account)
    await publish(broker, 1, 1_000_000)
    for usd in ("12.50", "1"):
        await operator.http.post("/api/accounts/shop/topups", json={"amount_usd": usd})
    await sell(broker, consumer)
    for owner, name in ((consumer, "shop"), (provider, "acme")):
        for path in ("balance", "statement", "statement?limit=1", "statement?format=csv"):
            own = await owner.http.get(f"/api/{path}")
            told = await operator.http.get(f"/api/accounts/{name}/{path}")
            assert (told.status_code, told.content) == (own.status_code, own.content), path
    assert len((await operator.http.get("/api/accounts/shop/statement")).json()["entries"]) == 3


@pytest.mark.parametrize("path", ["balance", "statement"])
async def test_only_an_operator_looks_into_another_account(
    operator: Person, consumer: Person, provider: Person, path: str
) -> None:
    for curious in (consumer, provider):
        assert (await curious.http.get(f"/api/accounts/shop/{path}")).status_code == 403
    for name in ("nobody", "ops"):
        assert (await operator.http.get(f"/api/accounts/{name}/{path}")).status_code == 404


async def test_an_operator_corrects_a_balance_up_and_down_once_and_with_a_reason(
    operator: Person, consumer: Person, provider: Person
) -> None:
    async def adjust(name: str, usd: str, reason: str, key: str | None = None) -> httpx.Response:
        return await operator.http.post(
            f"/api/accounts/{name}/adjustments",
            json={"amount_usd": usd, "reason": reason},
            headers={} if key is None else {"idempotency-key": key},
        )

    assert (await adjust("shop", "2.50", "paid twice")).json()["available_usd"] == "2.50"
    for _ in range(2):
        lowered = await adjust("shop", "-0.50", "counted twice", "k")
        assert (lowered.status_code, lowered.json()["available_usd"]) == (201, "2.00")
    assert (await adjust("acme", "1", "owed since May")).json()["available_usd"] == "1.00"
    refusals = [
        ("-2.01", "too much", "insufficient_balance"),
        ("0", "nothing", "amount_out_of_bounds"),
        ("--1", "two signs", "amount_invalid"),
        ("-0.0000000001", "too fine", "amount_invalid"),
        ("-NaN", "none", "amount_invalid"),
        ("1", " ", "reason_missing"),
    ]
    for usd, reason, code in refusals:
        assert (await adjust("shop", usd, reason)).json()["code"] == code
    entries = (await consumer.http.get("/api/statement")).json()["entries"]
    assert [(each["kind"], each["amount_usd"], each["reason"]) for each in entries] == [
        ("adjustment", "-0.50", "counted twice"),
        ("adjustment", "2.50", "paid twice"),
    ]

"""Operators look into any account's money as its owner does."""

from __future__ import annotations

import pytest

from tests.integration.api.conftest import Person, SmallBroker
from tests.integration.api.market import list_endpoints, publish
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

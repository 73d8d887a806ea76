"""What makes an object or moves money may be sent again, and what is shown once stays secret."""

from __future__ import annotations

from typing import Any

import pytest

from broker.store.access.idempotency import Place
from tests.integration.api.conftest import Person, SmallBroker

KEY = {"idempotency-key": "order-1"}


@pytest.mark.parametrize(
    ("path", "body", "listed"),
    [
        ("/api/accounts", {"name": "newcomer", "role": "consumer"}, "accounts"),
        ("/api/plans", {"tiers": [{"from_usd": "0", "take_bps": 1}], "reason": "x"}, "plans"),
        ("/api/accounts/shop/topups", {"amount_usd": "1"}, None),
    ],
)
async def test_a_request_sent_again_makes_one_object_and_gets_the_first_answer(
    operator: Person, consumer: Person, path: str, body: dict[str, Any], listed: str | None
) -> None:
    first = await operator.http.post(path, json=body, headers=KEY)
    again = await operator.http.post(path, json=body, headers=KEY)
    assert first.status_code == again.status_code == 201
    assert again.content == first.content
    assert again.headers["content-type"] == first.headers["content-type"]
    assert ("x-broker-replayed" in first.headers, again.headers["x-broker-replayed"]) == (
        False,
        "true",
    )
    if listed is not None:
        found = (await operator.http.get(path)).json()[listed]
        assert sum(each["id"] == first.json()["id"] for each in found) == 1
        assert len(found) == {"accounts": 3, "plans": 1}[listed]


async def test_one_key_for_two_paths_is_a_conflict(operator: Person, consumer: Person) -> None:
    await operator.http.post("/api/accounts/shop/topups", json={"amount_usd": "1"}, headers=KEY)
    other = await operator.http.post("/api/accounts/shop/keys", json={}, headers=KEY)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


@pytest.mark.parametrize("rotated", [False, True])
async def test_the_text_of_a_key_is_shown_once_and_kept_nowhere(
    broker: SmallBroker, operator: Person, consumer: Person, rotated: bool
) -> None:
    path, body = "/api/accounts/shop/keys", dict[str, Any]()
    if rotated:
        made = (await operator.http.post(path, json={})).json()["id"]
        path, body = f"/api/keys/{made}/rotate", {"overlap_s": 0}
    first = await operator.http.post(path, json=body, headers=KEY)
    assert first.status_code == 201
    again = await operator.http.post(path, json=body, headers=KEY)
    told = again.json()
    assert (again.status_code, told["code"]) == (409, "shown_once")
    assert told["id"] == first.json()["id"]
    assert told["id"] in told["detail"]
    async with broker.engine.connect() as connection:
        [row] = (await connection.exec_driver_sql("SELECT * FROM idempotency_keys")).all()
    place = Place(operator.account.id, KEY["idempotency-key"])
    kept = broker.sealer.open(row.answer, place.bound_to)
    assert first.json()["key"].split("_")[2].encode() not in kept
    keys = (await operator.http.get("/api/accounts/shop/keys")).json()["keys"]
    assert len(keys) == 2


async def test_an_answer_is_told_again_to_the_key_that_asked_alone(
    operator: Person, consumer: Person
) -> None:
    path, topup = "/api/accounts/shop/topups", {"amount_usd": "1"}
    first = await operator.http.post(path, json=topup, headers=KEY)
    other = (await operator.http.post("/api/accounts/ops/keys", json={})).json()["key"]
    foreign = await operator.http.post(
        path, json=topup, headers=KEY | {"authorization": f"Bearer {other}"}
    )
    assert (foreign.status_code, foreign.json()["code"]) == (409, "idempotency_other_key")
    again = await operator.http.post(path, json=topup, headers=KEY)
    assert again.content == first.content
    balance = (await consumer.http.get("/api/balance")).json()
    assert balance["posted_usd"] == "1.00"


async def test_another_account_may_use_the_same_key(operator: Person, consumer: Person) -> None:
    await operator.http.post("/api/accounts/shop/keys", json={"label": "a"}, headers=KEY)
    own = await consumer.http.post("/api/accounts/shop/keys", json={"label": "b"}, headers=KEY)
    assert own.status_code == 201


async def test_a_key_that_expires_while_it_is_claimed_is_free(
    broker: SmallBroker, operator: Person, consumer: Person
) -> None:
    """The row that stands in the way is gone when it is looked at."""
    place = f"/api/accounts/{consumer.account.name}/topups"
    topup = {"amount_usd": "1"}
    first = await operator.http.post(place, json=topup, headers=KEY)
    async with broker.engine.begin() as connection:
        await connection.exec_driver_sql(
            "UPDATE idempotency_keys SET request_sha256 = '\\x00'::bytea"
        )
        await connection.exec_driver_sql(
            "CREATE FUNCTION lapse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " DELETE FROM idempotency_keys WHERE request_sha256 = '\\x00'::bytea;"
            " RETURN NULL; END $$"
        )
        await connection.exec_driver_sql(
            "CREATE TRIGGER lapse AFTER INSERT ON idempotency_keys EXECUTE FUNCTION lapse()"
        )
    again = await operator.http.post(place, json=topup, headers=KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert "x-broker-replayed" not in again.headers

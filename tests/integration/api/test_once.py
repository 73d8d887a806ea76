"""What makes an object or moves money may be sent again, and what is shown once stays secret."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.api.conftest import Person, SmallBroker

KEY = {"idempotency-key": "order-1"}


@pytest.mark.parametrize(
    ("path", "body", "listed"),
    [
        ("/api/accounts", {"name": "newcomer", "role": "consumer"}, "accounts"),
        ("/api/accounts/shop/keys", {"label": "till"}, "keys"),
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
        assert len(found) == {"accounts": 3, "keys": 2}[listed]


async def test_one_key_for_two_paths_is_a_conflict(operator: Person, consumer: Person) -> None:
    await operator.http.post("/api/accounts/shop/topups", json={"amount_usd": "1"}, headers=KEY)
    other = await operator.http.post("/api/accounts/shop/keys", json={}, headers=KEY)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


async def test_the_text_of_a_key_is_kept_sealed(
    broker: SmallBroker, operator: Person, consumer: Person
) -> None:
    issued = await operator.http.post("/api/accounts/shop/keys", json={}, headers=KEY)
    secret = issued.json()["key"]
    async with broker.engine.connect() as connection:
        rows = (await connection.exec_driver_sql("SELECT * FROM idempotency_keys")).all()
    assert len(rows) == 1
    assert secret not in str(rows)
    assert secret.encode() not in rows[0].answer


async def test_a_rotation_sent_again_rotates_once(operator: Person, consumer: Person) -> None:
    issued = await operator.http.post("/api/accounts/shop/keys", json={})
    path = f"/api/keys/{issued.json()['id']}/rotate"
    rotated = [await operator.http.post(path, json={"overlap_s": 0}, headers=KEY) for _ in range(2)]
    assert {each.status_code for each in rotated} == {201}
    assert rotated[0].json() == rotated[1].json()


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

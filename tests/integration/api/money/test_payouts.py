"""Earnings and payouts over HTTP: who sees what, who may what, what is refused by name."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from broker.flows.access.authenticate import Caller
from broker.flows.money.topup import adjust
from broker.settings import Payouts
from tests.integration.api.conftest import Person, SmallBroker

BANK = {
    "method": "bank",
    "holder": "Acme Compute Ltd",
    "iban": "DE89 3704 0044 0532 0130 00",
    "bic": "COBADEFFXXX",
}
STRIPE = {"method": "stripe", "account": "acct_1a2b3c4d5e6f7g8h"}
SECRET = "whsec_test"


@pytest.fixture
def broker(broker: SmallBroker) -> SmallBroker:
    """A broker with an account to pay from."""
    payouts = Payouts("Broker", BANK["iban"], "", "sk_test_1", SECRET)
    broker.settings = replace(broker.settings, payouts=payouts)
    return broker


async def give(broker: SmallBroker, operator: Person, name: str, nanos: int) -> None:
    account = operator.account
    caller = Caller(account.id, account.name, account.role)
    await adjust(broker.engine, caller, name, nanos, "earned", broker.clock())


async def settle_down(broker: SmallBroker, provider: Person, **terms: Any) -> None:
    """Name a destination, and let it be no news any more."""
    broker.clock = lambda: datetime.now(UTC) - timedelta(days=2)
    answer = await provider.http.put("/api/payouts/terms", json={"destination": BANK, **terms})
    broker.clock = lambda: datetime.now(UTC)
    assert answer.status_code == 200, answer.text


async def pay(broker: SmallBroker, operator: Person, provider: Person) -> dict[str, Any]:
    """A payout of nine cents."""
    await settle_down(broker, provider)
    await give(broker, operator, provider.account.name, 90_000_000)
    answer = await operator.http.post(
        "/api/payouts", json={"provider": provider.account.name}, headers={"idempotency-key": "p"}
    )
    assert answer.status_code == 201, answer.text
    [payout] = answer.json()["payouts"]
    return payout


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_a_provider_sees_its_purses_and_an_operator_anyones(
    broker: SmallBroker, operator: Person, provider: Person, other_provider: Person
) -> None:
    await give(broker, operator, "acme", 90_000_000)
    own = (await provider.http.get("/api/earnings")).json()
    assert own == {
        "pending_usd": "0.00",
        "available_usd": "0.09",
        "disputed_usd": "0.00",
        "in_transit_usd": "0.00",
        "owed_usd": "0.00",
        "trust": "new",
        "delay_days": 14,
        "matured_before": None,
        "maturing": [],
    }
    assert (await operator.http.get("/api/earnings?provider=acme")).json() == own
    assert refused(await operator.http.get("/api/earnings")) == (400, "provider_missing")
    assert refused(await other_provider.http.get("/api/earnings?provider=acme")) == (
        404,
        "not_found",
    )


async def test_terms_have_defaults_and_show_no_account(provider: Person) -> None:
    before = (await provider.http.get("/api/payouts/terms")).json()
    assert (before["schedule"], before["threshold_usd"], before["destination"]) == (
        "weekly",
        "10.00",
        None,
    )
    wishes = {"schedule": "monthly", "threshold_usd": "25.5", "destination": BANK}
    after = await provider.http.put("/api/payouts/terms", json=wishes)
    assert after.json()["threshold_usd"] == "25.50"
    assert (after.json()["method"], after.json()["destination"]) == ("bank", "DE89…3000")
    assert "37040044" not in after.text
    kept = (await provider.http.put("/api/payouts/terms", json={"schedule": "manual"})).json()
    assert (kept["threshold_usd"], kept["destination"], kept["next_at"]) == (
        "25.50",
        "DE89…3000",
        None,
    )


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"threshold_usd": "-1"}, "amount_invalid"),
    ({"threshold_usd": "1e3"}, "amount_invalid"),
    ({"threshold_usd": "NaN"}, "amount_invalid"),
    ({"threshold_usd": "0.0000000001"}, "amount_invalid"),
    ({"threshold_usd": "10000000000"}, "amount_invalid"),
    ({"schedule": "hourly"}, "request_malformed"),
    ({"currency": "EUR", "destination": BANK}, "currency_unknown"),
    ({"destination": BANK | {"iban": "DE00370400440532013000"}}, "iban_invalid"),
    ({"destination": BANK | {"bic": "X"}}, "bic_invalid"),
    ({"destination": BANK | {"holder": "@cmd"}}, "holder_invalid"),
    ({"destination": {"method": "stripe", "account": "acme"}}, "stripe_account_invalid"),
    ({"destination": {"method": "cash"}}, "request_malformed"),
    ({"destination": BANK | {"note": "x"}}, "request_malformed"),
]


async def test_wrong_terms_are_refused_by_name(provider: Person) -> None:
    before = (await provider.http.get("/api/payouts/terms")).json()
    for wishes, code in WRONG:
        answer = await provider.http.put("/api/payouts/terms", json=wishes)
        assert refused(answer) == (400, code), wishes
    assert (await provider.http.get("/api/payouts/terms")).json() == before


async def test_a_way_that_the_broker_has_not_is_refused(
    broker: SmallBroker, provider: Person
) -> None:
    assert (
        await provider.http.put("/api/payouts/terms", json={"destination": STRIPE})
    ).status_code == 200
    broker.settings = replace(broker.settings, payouts=Payouts())
    answer = await provider.http.put("/api/payouts/terms", json={"destination": STRIPE})
    assert refused(answer) == (400, "method_not_offered")


async def test_a_change_of_destination_is_told_and_logged(
    operator: Person, provider: Person, broker: SmallBroker
) -> None:
    await provider.http.put("/api/payouts/terms", json={"destination": BANK})
    audit = (await operator.http.get("/api/audit")).json()["entries"]
    assert (audit[0]["author"], audit[0]["action"]) == ("acme", "set_payout_terms")
    async with broker.engine.connect() as connection:
        rows = await connection.exec_driver_sql("SELECT kind, payload FROM events")
        [(kind, payload)] = rows.all()
    assert kind == "payout.destination_changed"
    assert "37040044" not in str(payload) + str(audit)


async def test_a_payout_sent_for_twice_is_made_once(
    broker: SmallBroker, operator: Person, provider: Person
) -> None:
    payout = await pay(broker, operator, provider)
    again = await operator.http.post(
        "/api/payouts", json={"provider": "acme"}, headers={"idempotency-key": "p"}
    )
    assert again.headers["x-broker-replayed"] == "true"
    assert again.json()["payouts"] == [payout]
    assert (payout["amount_usd"], payout["status"], payout["currency"]) == ("0.09", "open", "USD")
    fresh = await operator.http.post("/api/payouts", json={"provider": "acme"})
    assert refused(fresh) == (409, "payout_nothing_due")
    [listed] = (await operator.http.get("/api/payouts?status=open&provider=acme")).json()["payouts"]
    assert listed == payout
    assert (await operator.http.get("/api/payouts?status=sent")).json()["payouts"] == []


async def test_a_provider_asks_for_and_sees_its_own_alone(
    broker: SmallBroker, operator: Person, provider: Person, other_provider: Person
) -> None:
    payout = await pay(broker, operator, provider)
    [own] = (await provider.http.get("/api/payouts")).json()["payouts"]
    assert own == payout
    shown = (await provider.http.get(f"/api/payouts/{payout['id']}")).json()
    assert shown["payout"] == payout
    assert [(each["kind"], each["amount_usd"]) for each in shown["items"]] == [
        ("adjustment", "0.09")
    ]
    assert (await other_provider.http.get("/api/payouts")).json()["payouts"] == []
    for answer in (
        await other_provider.http.get(f"/api/payouts/{payout['id']}"),
        await other_provider.http.get("/api/payouts?provider=acme"),
        await other_provider.http.get("/api/payouts/terms?provider=acme"),
        await other_provider.http.post("/api/payouts", json={"provider": "acme"}),
    ):
        assert refused(answer) == (404, "not_found")
    await give(broker, operator, "acme", 10_000_000)
    asked = await provider.http.post("/api/payouts", json={})
    assert asked.json()["payouts"][0]["amount_usd"] == "0.01"


async def test_what_became_of_a_payout_is_for_operators_to_say(
    broker: SmallBroker, operator: Person, provider: Person, consumer: Person
) -> None:
    payout = await pay(broker, operator, provider)
    path = f"/api/payouts/{payout['id']}"
    for who in (provider, consumer):
        for step in ("confirm", "fail", "return"):
            assert refused(await who.http.post(f"{path}/{step}", json={})) == (403, "not_allowed")
        answer = await who.http.post(f"/api/payouts/batches/{payout['batch_id']}/export", json={})
        assert answer.status_code == 403
        assert (await who.http.get("/api/payouts/batches")).status_code == 403
        delay = await who.http.put("/api/earnings/acme/delay", json={"days": 0})
        assert delay.status_code == 403
    for path_of_provider in ("/api/earnings", "/api/payouts", "/api/payouts/terms"):
        assert (await consumer.http.get(path_of_provider)).status_code == 403
    assert (await operator.http.put("/api/payouts/terms", json={})).status_code == 403


async def test_a_payout_goes_its_way_and_a_wrong_step_is_refused(
    broker: SmallBroker, operator: Person, provider: Person
) -> None:
    payout = await pay(broker, operator, provider)
    path = f"/api/payouts/{payout['id']}"
    early = await operator.http.post(f"{path}/return", json={"reason": "too soon"})
    assert refused(early) == (409, "payout_open")
    assert refused(await operator.http.post(f"{path}/fail", json={})) == (400, "reason_missing")
    for _ in range(2):
        sent = await operator.http.post(f"{path}/confirm", json={"reference": "bank-7"})
        assert (sent.status_code, sent.json()["status"]) == (200, "sent")
    assert sent.json()["reference"] == "bank-7"
    entries = (await provider.http.get("/api/statement")).json()["entries"]
    assert [(each["kind"], each["amount_usd"]) for each in entries] == [
        ("payout_sent", "-0.09"),
        ("adjustment", "0.09"),
    ]
    back = await operator.http.post(f"{path}/return", json={"reason": "account closed"})
    assert back.json()["status"] == "returned"
    assert (await provider.http.get("/api/earnings")).json()["available_usd"] == "0.09"


async def test_a_batch_is_exported_as_a_file(
    broker: SmallBroker, operator: Person, provider: Person
) -> None:
    payout = await pay(broker, operator, provider)
    path = f"/api/payouts/batches/{payout['batch_id']}/export"
    xml = await operator.http.post(path, json={})
    assert xml.headers["content-type"].startswith("application/xml")
    assert xml.headers["content-disposition"].endswith(f'payouts-{payout["batch_id"]}.xml"')
    assert b"DE89370400440532013000" in xml.content
    table = await operator.http.post(path, json={"format": "csv"})
    assert payout["id"] in table.text
    [batch] = (await operator.http.get("/api/payouts/batches")).json()["batches"]
    assert (batch["id"], batch["author"]) == (payout["batch_id"], "ops")
    assert batch["exported_at"] is not None


async def test_an_operator_sets_how_long_earnings_wait(operator: Person, provider: Person) -> None:
    answer = await operator.http.put("/api/earnings/acme/delay", json={"days": 3})
    assert answer.json()["delay_days"] == 3
    assert (await provider.http.get("/api/earnings")).json()["delay_days"] == 3
    await operator.http.put("/api/earnings/acme/delay", json={"days": None})
    assert (await provider.http.get("/api/earnings")).json()["delay_days"] == 14
    for days in (-1, 366):
        wrong = await operator.http.put("/api/earnings/acme/delay", json={"days": days})
        assert refused(wrong) == (400, "delay_out_of_bounds")
    unknown = await operator.http.put("/api/earnings/ops/delay", json={"days": 3})
    assert refused(unknown) == (404, "not_found")


async def test_stripe_needs_a_signature_and_no_key(
    broker: SmallBroker, operator: Person, provider: Person, stranger: httpx.AsyncClient
) -> None:
    payout = await pay(broker, operator, provider)
    transfer = {"id": "tr_1", "object": "transfer", "transfer_group": payout["id"]}
    event = {"id": "evt_1", "object": "event", "type": "transfer.reversed"}
    body = json.dumps(event | {"data": {"object": transfer | {"reversed": True}}}).encode()
    at = int(time.time())
    mac = hmac.new(SECRET.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    forged = await stranger.post(
        "/api/stripe-events", content=body, headers={"stripe-signature": f"t={at},v1=00"}
    )
    assert refused(forged) == (400, "signature_invalid")
    for _ in range(2):
        told = await stranger.post(
            "/api/stripe-events", content=body, headers={"stripe-signature": f"t={at},v1={mac}"}
        )
        assert told.status_code == 204, told.text
    shown = (await provider.http.get(f"/api/payouts/{payout['id']}")).json()
    assert shown["payout"]["status"] == "returned"

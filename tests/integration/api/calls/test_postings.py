"""The postings of a call over HTTP, all or in part, and what the monitor of the books found."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from broker.flows.books.monitor import watch
from broker.store.books import transfers
from broker.store.books.transfers import Transfer, TransferKind
from broker.store.database import create_engine
from pricing.money import parse_usd_nanos
from tests.integration.api.conftest import Person, SmallBroker, client_of
from tests.integration.api.listing import list_endpoints, publish
from tests.integration.api.sales import hold_only, sell


@pytest.fixture
async def funded(broker: SmallBroker, operator: Person, consumer: Person, provider: Person) -> None:
    """A market with an endpoint of `acme`, and a consumer with a dollar."""
    await list_endpoints(broker, provider.account)
    await publish(broker, 3, 250_000)
    topup = await operator.http.post("/api/accounts/shop/topups", json={"amount_usd": "1"})
    assert topup.status_code == 201


async def _refund(broker: SmallBroker, call_id: UUID, provider: Person, consumer: Person) -> None:
    assert provider.account.ledger_account is not None
    assert consumer.account.ledger_account is not None
    async with broker.engine.begin() as connection:
        back = Transfer(
            id=uuid7(),
            debit=provider.account.ledger_account,
            credit=consumer.account.ledger_account,
            amount_nanos=1_000,
            kind=TransferKind.REFUND,
            reason="late",
            author="ops",
            created_at=datetime.now(UTC),
            call_id=call_id,
        )
        await transfers.post(connection, back)


def _amounts(entry: dict[str, Any]) -> dict[str, int]:
    signs = {each["account"]: each["amount_usd"] for each in entry["postings"]}
    return {name: _nanos(usd) for name, usd in signs.items()}


def _nanos(usd: str) -> int:
    return -parse_usd_nanos(usd[1:]) if usd.startswith("-") else parse_usd_nanos(usd)


@pytest.mark.usefixtures("funded")
async def test_each_reader_sees_its_part_by_the_names_it_may_know(
    broker: SmallBroker,
    operator: Person,
    consumer: Person,
    provider: Person,
    other_consumer: Person,
    other_provider: Person,
) -> None:
    call_id = await sell(broker, consumer)
    await _refund(broker, call_id, provider, consumer)
    path = f"/api/calls/{call_id}/postings"
    whole = (await operator.http.get(path)).raise_for_status().json()
    assert (whole["state"], whole["sum_usd"]) == ("captured", "0.00")
    charge, refund = whole["entries"]
    assert (charge["kind"], refund["kind"]) == ("charge", "refund")
    assert (charge["attempt"], charge["endpoint"]) == (0, "acme/law")
    assert (refund["reason"], refund["author"]) == ("late", "ops")
    assert _amounts(refund) == {"acme/earnings": -1_000, "shop/funds": 1_000}
    take = next(name for name in _amounts(charge) if name.startswith("broker/take/"))
    assert list(_amounts(charge)) == ["shop/funds", "acme/earnings", take]
    for entry in whole["entries"]:
        assert sum(_amounts(entry).values()) == 0
        assert entry["sum_usd"] == "0.00"
    held = whole["held"]
    assert [each["kind"] for each in held["moves"]] == ["hold", "captured"]
    assert (held["account"], held["still_usd"]) == ("shop/funds", "0.00")
    assert sum(_nanos(each["amount_usd"]) for each in held["moves"]) == 0
    paid = {each["account"]: _nanos(each["amount_usd"]) for each in whole["accounts"]}
    assert paid["shop/funds"] == _amounts(charge)["shop/funds"] + 1_000
    assert sum(paid.values()) == 0

    own = (await consumer.http.get(path)).raise_for_status().json()
    assert list(_amounts(own["entries"][0])) == ["shop/funds", "acme", "broker"]
    assert own["entries"][1]["author"] is None
    assert own["held"] == held

    part = (await provider.http.get(path)).raise_for_status().json()
    assert part["held"] is None
    assert list(_amounts(part["entries"][0])) == ["caller", "acme/earnings", "broker"]
    assert "shop" not in str(part)

    for stranger in (other_consumer, other_provider):
        assert (await stranger.http.get(path)).status_code == 404
    assert (await operator.http.get(f"/api/calls/{uuid7()}/postings")).status_code == 404


@pytest.mark.usefixtures("funded")
async def test_a_provider_that_only_failed_sees_nothing_and_a_call_under_way_shows_its_hold(
    broker: SmallBroker, operator: Person, consumer: Person, provider: Person
) -> None:
    call_id = await hold_only(broker, consumer)
    path = f"/api/calls/{call_id}/postings"
    told = (await consumer.http.get(path)).raise_for_status().json()
    assert (told["state"], told["entries"], told["accounts"]) == ("under_way", [], [])
    assert told["held"]["still_usd"] == "0.005"
    assert told["held"]["expires_at"] is not None
    assert (await provider.http.get(path)).status_code == 404
    assert (await operator.http.get(path)).json()["held"]["account"] == "shop/funds"


async def test_what_the_monitor_last_found_is_on_the_metrics_and_in_the_health(
    broker: SmallBroker, operator: Person
) -> None:
    health = (await operator.http.get("/api/ledger/health")).raise_for_status().json()
    assert (health["ok"], [each["at"] for each in health["checks"]]) == (False, [None, None])
    assert "broker_ledger_alarms{" not in (await operator.http.get("/metrics")).text

    now = broker.clock()
    await watch(broker.engine, now, replay=True)
    assert (await operator.http.get("/api/ledger/health")).json()["ok"]
    text = (await operator.http.get("/metrics")).text
    assert 'broker_ledger_alarms{view="invariant_books_sum_to_zero"} 0.0' in text
    assert 'broker_ledger_alarms{view="replay_balance_is_its_entries"} 0.0' in text
    stamp = text.partition('broker_ledger_checked_timestamp_seconds{check="invariants"} ')[2]
    assert float(stamp.split()[0]) == pytest.approx(now.timestamp(), abs=0.01)

    tamper = "UPDATE balances SET posted_nanos = posted_nanos + ({}) WHERE may_overdraw"
    async with broker.engine.begin() as connection:
        await connection.exec_driver_sql(tamper.format(1))
    await watch(broker.engine, now + timedelta(seconds=60), replay=False)
    await watch(broker.engine, now + timedelta(seconds=30), replay=False)  # begun before, and slow
    async with broker.engine.begin() as connection:
        await connection.exec_driver_sql(tamper.format(-1))
    broker.clock = lambda: now + timedelta(seconds=90)
    health = (await operator.http.get("/api/ledger/health")).json()
    [invariants, replay] = health["checks"]
    assert not health["ok"]
    assert (invariants["ok"], invariants["stale"], replay["ok"]) == (False, False, True)
    assert invariants["alarms"]["invariant_books_sum_to_zero"] == 1
    assert invariants["age_s"] == pytest.approx(30)
    text = (await operator.http.get("/metrics")).text
    assert 'broker_ledger_alarms{view="invariant_books_sum_to_zero"} 1.0' in text

    await watch(broker.engine, now + timedelta(seconds=91), replay=False)
    broker.clock = lambda: now + timedelta(minutes=10)
    [invariants, _] = (await operator.http.get("/api/ledger/health")).json()["checks"]
    assert (invariants["alarms"], invariants["stale"], invariants["ok"]) == ({}, True, False)


async def test_metrics_are_answered_while_the_database_is_away(
    broker: SmallBroker, api: object
) -> None:
    await broker.engine.dispose()
    broker.engine = create_engine("postgresql://broker@127.0.0.1:1/broker", connections_max=1)
    async with client_of(api) as client:  # type: ignore[arg-type]
        answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert "broker_price_version" in answer.text
    assert "broker_ledger_alarms" not in answer.text

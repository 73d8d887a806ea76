"""Refunds over HTTP: exact, within the charge, from the right purse, one winner at a time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
from uuid_utils.compat import uuid7

from tests.integration.api.conftest import Person, SmallBroker
from tests.integration.api.recourse import charge, mature, pay_out, posted, shop, taken
from tests.integration.api.sales import hold_only

__all__ = ["shop"]

FUNDS_NANOS = 1_000_000_000


async def give_back(operator: Person, call_id: UUID, **body: Any) -> httpx.Response:
    wanted = {"reason": "wrong answer"} | body
    return await operator.http.post(f"/api/calls/{call_id}/refunds", json=wanted)


async def money_of(broker: SmallBroker, *people: Person) -> list[dict[str, int]]:
    async with broker.engine.connect() as connection:
        return [await posted(connection, each.account) for each in people]


async def test_a_whole_refund_undoes_what_every_side_got(
    broker: SmallBroker, operator: Person, shop: Person, provider: Person, other_provider: Person
) -> None:
    call_id = await charge(broker, shop, (0, 1_001), (1, 333))
    answer = await give_back(operator, call_id)
    assert answer.status_code == 201, answer.text
    assert answer.json()["amount_usd"] == "0.001334"
    assert answer.json()["number"] == "CN-shop-000001"
    assert answer.json()["author"] == "ops"
    mine, first, second = await money_of(broker, shop, provider, other_provider)
    assert mine == {"funds": FUNDS_NANOS}
    assert {*first.values(), *second.values()} == {0}
    async with broker.engine.connect() as connection:
        assert await taken(connection) == 0


async def test_parts_are_shared_by_the_lines_and_numbered_one_by_one(
    broker: SmallBroker, operator: Person, shop: Person, provider: Person, other_provider: Person
) -> None:
    call_id = await charge(broker, shop, (0, 300), (1, 100))
    answers = [await give_back(operator, call_id, amount_usd="0.00004") for _ in range(2)]
    assert [each.json()["number"][-6:] for each in answers] == ["000001", "000002"]
    lines = answers[0].json()["lines"]
    assert [(each["amount_usd"], each["take_usd"]) for each in lines] == [
        ("0.00003", "0.000003"),
        ("0.00001", "0.000001"),
    ]
    mine, first, second = await money_of(broker, shop, provider, other_provider)
    assert mine["funds"] == FUNDS_NANOS - 400_000 + 80_000
    assert (first["earnings"], second["earnings"]) == (270_000 - 54_000, 90_000 - 18_000)


async def test_an_absurd_amount_is_refused(
    broker: SmallBroker, operator: Person, shop: Person
) -> None:
    call_id = await charge(broker, shop, (0, 300))
    for amount in ("0", "-1", "NaN", "1e3", "1.0000000001", "", "9999999999", 5, "0.000000000"):
        answer = await give_back(operator, call_id, amount_usd=amount)
        assert answer.status_code == 400, answer.text
    assert (await money_of(broker, shop))[0]["funds"] == FUNDS_NANOS - 300_000


async def test_no_more_goes_back_than_was_charged_however_often_it_is_tried(
    broker: SmallBroker, operator: Person, shop: Person
) -> None:
    call_id = await charge(broker, shop, (0, 300))
    above = await give_back(operator, call_id, amount_usd="0.000300001")
    assert (above.status_code, above.json()["code"]) == (409, "refund_too_large")
    assert above.json()["refundable_usd"] == "0.0003"
    assert (await give_back(operator, call_id, amount_usd="0.0002")).status_code == 201
    beyond = await give_back(operator, call_id, amount_usd="0.0002")
    assert (beyond.json()["code"], beyond.json()["refundable_usd"]) == (
        "refund_too_large",
        "0.0001",
    )
    assert (await give_back(operator, call_id)).json()["amount_usd"] == "0.0001"
    assert (await give_back(operator, call_id)).json()["code"] == "refund_too_large"
    assert (await money_of(broker, shop))[0]["funds"] == FUNDS_NANOS


async def test_of_many_refunds_at_once_those_that_fit_win(
    broker: SmallBroker, operator: Person, shop: Person
) -> None:
    call_id = await charge(broker, shop, (0, 300), (1, 300))
    answers = await asyncio.gather(
        *(give_back(operator, call_id, amount_usd="0.00025") for _ in range(8))
    )
    assert sorted(each.status_code for each in answers) == [201, 201, *[409] * 6]
    assert (await money_of(broker, shop))[0]["funds"] == FUNDS_NANOS - 100_000


async def test_refunds_and_calls_at_once_wait_for_each_other_and_never_for_ever(
    broker: SmallBroker, operator: Person, shop: Person, provider: Person, other_provider: Person
) -> None:
    orders = [((0, 300), (1, 100)), ((1, 200), (0, 50))]
    called = [await charge(broker, shop, *orders[place % 2]) for place in range(8)]
    refunds = [give_back(operator, each, amount_usd="0.0002") for each in called]
    answers = await asyncio.gather(*refunds, *(charge(broker, shop, *orders[0]) for _ in range(8)))
    assert {each.status_code for each in answers[:8]} == {201}
    mine, first, second = await money_of(broker, shop, provider, other_provider)
    spent = FUNDS_NANOS - mine["funds"]
    async with broker.engine.connect() as connection:
        assert spent == first["earnings"] + second["earnings"] + await taken(connection)


async def test_a_refund_sent_again_under_its_key_is_done_once(
    broker: SmallBroker, operator: Person, shop: Person
) -> None:
    call_id = await charge(broker, shop, (0, 300))
    operator.http.headers["idempotency-key"] = "refund-1"
    first = await give_back(operator, call_id, amount_usd="0.0001")
    again = await give_back(operator, call_id, amount_usd="0.0001")
    other = await give_back(operator, call_id, amount_usd="0.0002")
    assert (first.status_code, first.content) == (201, again.content)
    assert other.status_code == 409
    assert (await money_of(broker, shop))[0]["funds"] == FUNDS_NANOS - 200_000


async def test_a_refund_of_a_matured_line_comes_from_what_is_available(
    broker: SmallBroker, operator: Person, shop: Person, provider: Person
) -> None:
    old = await charge(broker, shop, (0, 300))
    await mature(broker, provider.account, broker.clock() + timedelta(microseconds=1))
    fresh = await charge(broker, shop, (0, 200))
    await give_back(operator, old)
    await give_back(operator, fresh, amount_usd="0.0001")
    [mine] = await money_of(broker, provider)
    assert (mine["earnings"], mine["available"], mine["receivable"]) == (90_000, 0, 0)


async def test_what_was_paid_out_already_is_owed(
    broker: SmallBroker, operator: Person, shop: Person, provider: Person
) -> None:
    call_id = await charge(broker, shop, (0, 300))
    await mature(broker, provider.account, broker.clock() + timedelta(microseconds=1))
    await pay_out(broker, provider.account, 200_000)
    answer = await give_back(operator, call_id)
    assert answer.status_code == 201
    [mine] = await money_of(broker, provider)
    assert (mine["available"], mine["receivable"]) == (0, -200_000)
    assert (await money_of(broker, shop))[0]["funds"] == FUNDS_NANOS


async def test_only_a_settled_call_that_cost_something_is_refunded(
    broker: SmallBroker, operator: Person, shop: Person
) -> None:
    under_way = await hold_only(broker, shop)
    free = await charge(broker, shop)
    answers = [await give_back(operator, each) for each in (under_way, free, uuid7())]
    assert [(each.status_code, each.json()["code"]) for each in answers] == [
        (409, "call_not_settled"),
        (409, "nothing_charged"),
        (404, "not_found"),
    ]


async def test_a_refund_has_a_reason_that_can_be_read(
    broker: SmallBroker, operator: Person, shop: Person
) -> None:
    call_id = await charge(broker, shop, (0, 300))
    for reason in ("", "  ", "x" * 501, "a\x00b"):
        answer = await give_back(operator, call_id, reason=reason)
        assert answer.status_code == 400, answer.text
        assert answer.json()["code"].startswith("reason_")


async def test_only_an_operator_refunds(
    broker: SmallBroker, shop: Person, provider: Person
) -> None:
    call_id = await charge(broker, shop, (0, 300))
    for person in (shop, provider):
        answer = await give_back(person, call_id)
        assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed")


async def test_an_unknown_currency_is_refused_by_name(
    broker: SmallBroker, operator: Person, shop: Person
) -> None:
    call_id = await charge(broker, shop, (0, 300))
    answer = await give_back(operator, call_id, currency="EUR")
    assert answer.status_code == 400
    assert "currency" in answer.text


async def test_each_side_reads_its_own_of_a_credit_note(
    broker: SmallBroker,
    operator: Person,
    shop: Person,
    other_consumer: Person,
    provider: Person,
    other_provider: Person,
) -> None:
    call_id = await charge(broker, shop, (0, 300))
    note = (await give_back(operator, call_id)).json()
    for reader, seen in (
        (operator, True),
        (shop, True),
        (provider, True),
        (other_consumer, False),
        (other_provider, False),
    ):
        listed = (await reader.http.get("/api/credit-notes")).json()["credit_notes"]
        read = await reader.http.get(f"/api/credit-notes/{note['id']}")
        assert [each["id"] for each in listed] == ([note["id"]] if seen else [])
        assert read.status_code == (200 if seen else 404)
    assert (await provider.http.get(f"/api/credit-notes/{note['id']}")).json()["account"] is None


async def test_a_refund_is_audited_told_and_one_entry_of_the_statement(
    broker: SmallBroker, operator: Person, shop: Person, provider: Person
) -> None:
    call_id = await charge(broker, shop, (0, 300))
    note = (await give_back(operator, call_id, amount_usd="0.0001")).json()
    [deed, *_] = (await operator.http.get("/api/audit")).json()["entries"]
    assert (deed["author"], deed["action"], deed["object"]) == (
        "ops",
        "refund",
        f"calls/{call_id}",
    )
    async with broker.engine.connect() as connection:
        rows = await connection.exec_driver_sql(
            "SELECT account_id, kind, object, payload FROM events WHERE kind = 'refund.posted'"
        )
        told = {row.account_id: row for row in rows}
    assert set(told) == {shop.account.id, provider.account.id}
    assert told[shop.account.id].object == f"credit_notes/{note['id']}"
    assert told[provider.account.id].payload["amount_usd"] == "0.00009"
    for reader, amount in ((shop, "0.0001"), (provider, "-0.00009")):
        [entry, *_] = (await reader.http.get("/api/statement")).json()["entries"]
        assert (entry["kind"], entry["amount_usd"]) == ("refund", amount)
        assert (entry["source"], entry["call_id"]) == (note["id"], str(call_id))

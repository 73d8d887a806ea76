"""Disputes over HTTP: asked, answered, overdue, decided, withdrawn; each side sees its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from uuid_utils.compat import uuid7

from broker.flows.money.answer_dispute import decide_overdue
from tests.integration.api.conftest import Person, SmallBroker
from tests.integration.api.recourse import charge, posted, shop
from tests.integration.api.sales import hold_only

__all__ = ["shop"]

FUNDS_NANOS = 1_000_000_000


async def ask(person: Person, call_id: UUID, **body: Any) -> httpx.Response:
    wanted = {"reason": "not what was asked"} | body
    return await person.http.post(f"/api/calls/{call_id}/refund-request", json=wanted)


async def say(person: Person, dispute: dict[str, Any], act: str, **body: Any) -> httpx.Response:
    return await person.http.post(f"/api/disputes/{dispute['id']}/{act}", json=body or None)


async def funds(broker: SmallBroker, person: Person) -> int:
    async with broker.engine.connect() as connection:
        return (await posted(connection, person.account))["funds"]


def later(broker: SmallBroker, **by: float) -> Callable[[], datetime]:
    """A clock that is ahead."""
    now = broker.clock
    return lambda: now() + timedelta(**by)


async def test_a_provider_accepts_and_the_consumer_has_its_money_back(
    broker: SmallBroker, shop: Person, provider: Person
) -> None:
    call_id = await charge(broker, shop, (0, 300))
    asked = await ask(shop, call_id)
    assert asked.status_code == 201, asked.text
    assert (asked.json()["status"], asked.json()["asked_usd"]) == ("open", "0.0003")
    answered = (await say(provider, asked.json(), "answer", answer="accept")).json()
    assert (answered["status"], answered["refunded_usd"]) == ("decided", "0.0003")
    assert await funds(broker, shop) == FUNDS_NANOS
    [note] = (await shop.http.get("/api/credit-notes")).json()["credit_notes"]
    assert (note["dispute_id"], note["author"]) == (asked.json()["id"], "acme")


async def test_each_provider_answers_for_its_own_lines_and_an_operator_for_the_rest(
    broker: SmallBroker, operator: Person, shop: Person, provider: Person, other_provider: Person
) -> None:
    call_id = await charge(broker, shop, (0, 300), (1, 100))
    dispute = (await ask(shop, call_id, amount_usd="0.0002")).json()
    seen = (await other_provider.http.get(f"/api/disputes/{dispute['id']}")).json()
    assert (seen["account"], seen["asked_usd"]) == (None, "0.00005")
    assert [each["provider"] for each in seen["parts"]] == ["globex"]
    early = await say(operator, dispute, "decision", decision="uphold", reason="no need to wait")
    assert early.json()["code"] == "dispute_not_contested"
    await say(provider, dispute, "answer", answer="accept")
    assert await funds(broker, shop) == FUNDS_NANOS - 400_000 + 150_000
    contested = await say(other_provider, dispute, "answer", answer="contest", words="It ran.")
    assert (contested.json()["status"], contested.json()["refunded_usd"]) == ("contested", "0.00")
    again = await say(other_provider, dispute, "answer", answer="accept")
    assert (again.status_code, again.json()["code"]) == (409, "dispute_answered")
    above = await say(
        operator, dispute, "decision", decision="uphold", reason="x", amount_usd="0.00006"
    )
    assert above.json()["code"] == "refund_too_large"
    decided = await say(
        operator, dispute, "decision", decision="uphold", reason="half of it", amount_usd="0.00002"
    )
    assert decided.status_code == 200, decided.text
    assert (decided.json()["verdict"], decided.json()["refunded_usd"]) == ("upheld", "0.00017")
    assert await funds(broker, shop) == FUNDS_NANOS - 400_000 + 170_000
    closed = await say(operator, dispute, "decision", decision="reject", reason="x")
    assert closed.json()["code"] == "dispute_closed"


async def test_an_operator_rejects_and_that_is_the_end_of_it(
    broker: SmallBroker, operator: Person, shop: Person, provider: Person
) -> None:
    call_id = await charge(broker, shop, (0, 300))
    dispute = (await ask(shop, call_id)).json()
    wordless = await say(provider, dispute, "answer", answer="contest")
    assert wordless.json()["code"] == "reason_missing"
    await say(provider, dispute, "answer", answer="contest", words="It ran.")
    odd = await say(
        operator, dispute, "decision", decision="reject", reason="x", amount_usd="0.0001"
    )
    assert odd.json()["code"] == "amount_out_of_bounds"
    rejected = await say(operator, dispute, "decision", decision="reject", reason="It ran.")
    assert (rejected.json()["status"], rejected.json()["verdict"]) == ("decided", "rejected")
    assert await funds(broker, shop) == FUNDS_NANOS - 300_000
    once_more = await ask(shop, call_id)
    assert (once_more.status_code, once_more.json()["code"]) == (409, "dispute_decided")


async def test_a_dispute_that_cannot_be_decided_keeps_no_other_waiting(
    broker: SmallBroker, shop: Person
) -> None:
    asked = [(await ask(shop, await charge(broker, shop, (0, 100)))).json() for _ in range(4)]
    async with broker.engine.begin() as connection:
        await connection.exec_driver_sql(
            "ALTER TABLE disputes ADD CONSTRAINT stuck CHECK"
            f" (id NOT IN ('{asked[0]['id']}', '{asked[1]['id']}') OR status = 'open') NOT VALID"
        )
    broker.clock = later(broker, days=7, seconds=1)
    assert await decide_overdue(broker.engine, broker.clock(), at_once=2) == 2
    told = (await shop.http.get("/api/disputes")).json()["disputes"]
    states = {each["id"]: each["status"] for each in told}
    assert [states[each["id"]] for each in asked] == ["open", "open", "decided", "decided"]


async def test_who_says_nothing_in_time_has_accepted(
    broker: SmallBroker, shop: Person, provider: Person, other_provider: Person
) -> None:
    silent = await charge(broker, shop, (0, 300))
    mixed = await charge(broker, shop, (0, 100), (1, 100))
    first = (await ask(shop, silent)).json()
    second = (await ask(shop, mixed)).json()
    await say(other_provider, second, "answer", answer="contest", words="It ran.")
    assert await decide_overdue(broker.engine, broker.clock()) == 0
    broker.clock = later(broker, days=7, seconds=1)
    late = await say(provider, first, "answer", answer="contest", words="Sorry, late.")
    assert (late.status_code, late.json()["code"]) == (409, "dispute_overdue")
    both = [decide_overdue(broker.engine, broker.clock()) for _ in range(2)]
    assert sum(await asyncio.gather(*both)) == 2
    states = {
        each["id"]: (each["status"], each["refunded_usd"])
        for each in (await shop.http.get("/api/disputes")).json()["disputes"]
    }
    assert states == {
        first["id"]: ("decided", "0.0003"),
        second["id"]: ("contested", "0.0001"),
    }
    assert await funds(broker, shop) == FUNDS_NANOS - 100_000


async def test_a_consumer_withdraws_and_may_ask_again(
    broker: SmallBroker, shop: Person, other_consumer: Person, provider: Person
) -> None:
    call_id = await charge(broker, shop, (0, 300))
    dispute = (await ask(shop, call_id)).json()
    second = await ask(shop, call_id)
    assert (second.status_code, second.json()["code"]) == (409, "dispute_open")
    assert (await say(other_consumer, dispute, "withdrawal")).status_code == 404
    withdrawn = await say(shop, dispute, "withdrawal")
    assert withdrawn.json()["status"] == "withdrawn"
    answer = await say(provider, dispute, "answer", answer="accept")
    assert answer.json()["code"] == "dispute_closed"
    assert (await say(shop, dispute, "withdrawal")).json()["code"] == "dispute_closed"
    assert (await ask(shop, call_id)).status_code == 201
    assert await funds(broker, shop) == FUNDS_NANOS - 300_000


async def test_nobody_asks_a_provider_that_has_contested_until_it_is_silent_once(
    broker: SmallBroker, shop: Person, provider: Person
) -> None:
    call_id = await charge(broker, shop, (0, 300))
    dispute = (await ask(shop, call_id)).json()
    await say(provider, dispute, "answer", answer="contest", words="It ran.")
    assert (await say(shop, dispute, "withdrawal")).json()["status"] == "withdrawn"
    again = await ask(shop, call_id)
    assert (again.status_code, again.json()["code"]) == (409, "dispute_withdrawn")


async def test_of_an_acceptance_a_withdrawal_and_the_clock_one_wins(
    broker: SmallBroker, shop: Person, provider: Person
) -> None:
    for _ in range(4):
        call_id = await charge(broker, shop, (0, 300))
        dispute = (await ask(shop, call_id)).json()
        before = await funds(broker, shop)
        _, _, overdue = await asyncio.gather(
            say(provider, dispute, "answer", answer="accept"),
            say(shop, dispute, "withdrawal"),
            decide_overdue(broker.engine, later(broker, days=8)()),
        )
        ended = (await shop.http.get(f"/api/disputes/{dispute['id']}")).json()
        back = await funds(broker, shop) - before
        assert ended["status"] in ("decided", "withdrawn")
        assert back == (300_000 if ended["status"] == "decided" else 0)
        assert overdue in (0, 1)


async def test_a_refund_by_hand_comes_off_what_a_dispute_gives_back(
    broker: SmallBroker, operator: Person, shop: Person, provider: Person
) -> None:
    call_id = await charge(broker, shop, (0, 300))
    dispute = (await ask(shop, call_id)).json()
    body = {"reason": "goodwill", "amount_usd": "0.0002"}
    await operator.http.post(f"/api/calls/{call_id}/refunds", json=body)
    answered = await say(provider, dispute, "answer", answer="accept")
    assert answered.json()["refunded_usd"] == "0.0001"
    assert await funds(broker, shop) == FUNDS_NANOS
    spent = await ask(shop, call_id)
    assert spent.json()["code"] == "refund_too_large"


async def test_what_cannot_be_disputed_is_told_by_name(
    broker: SmallBroker, shop: Person, other_consumer: Person
) -> None:
    call_id = await charge(broker, shop, (0, 300))
    under_way = await hold_only(broker, shop)
    free = await charge(broker, shop)
    answers = [
        await ask(shop, under_way),
        await ask(shop, free),
        await ask(shop, uuid7()),
        await ask(other_consumer, call_id),
        await ask(shop, call_id, amount_usd="0.000300001"),
        await ask(shop, call_id, amount_usd="0"),
        await ask(shop, call_id, amount_usd="NaN"),
        await ask(shop, call_id, reason="  "),
    ]
    assert [(each.status_code, each.json()["code"]) for each in answers] == [
        (409, "call_not_settled"),
        (409, "nothing_charged"),
        (404, "not_found"),
        (404, "not_found"),
        (409, "refund_too_large"),
        (400, "amount_out_of_bounds"),
        (400, "amount_invalid"),
        (400, "reason_missing"),
    ]
    broker.clock = later(broker, days=30, seconds=2)
    over = await ask(shop, call_id)
    assert (over.status_code, over.json()["code"]) == (409, "dispute_window_over")


async def test_each_role_may_say_its_part_alone(
    broker: SmallBroker,
    operator: Person,
    shop: Person,
    other_consumer: Person,
    provider: Person,
    other_provider: Person,
) -> None:
    call_id = await charge(broker, shop, (0, 300))
    dispute = (await ask(shop, call_id)).json()
    for person in (operator, provider):
        assert (await ask(person, call_id)).status_code == 403
    for person in (operator, shop):
        assert (await say(person, dispute, "answer", answer="accept")).status_code == 403
    foreign = await say(other_provider, dispute, "answer", answer="accept")
    assert foreign.status_code == 404
    decision = await say(provider, dispute, "decision", decision="reject", reason="x")
    assert decision.status_code == 403
    for person, status in ((other_consumer, 404), (other_provider, 404), (operator, 200)):
        assert (await person.http.get(f"/api/disputes/{dispute['id']}")).status_code == status
        listed = (await person.http.get("/api/disputes")).json()["disputes"]
        assert len(listed) == (status == 200)


async def test_every_step_is_audited_and_told_to_those_whom_it_concerns(
    broker: SmallBroker, operator: Person, shop: Person, provider: Person, other_provider: Person
) -> None:
    call_id = await charge(broker, shop, (0, 300))
    dispute = (await ask(shop, call_id)).json()
    await say(provider, dispute, "answer", answer="contest", words="It ran.")
    await say(operator, dispute, "decision", decision="uphold", reason="It did not.")
    entries = (await operator.http.get("/api/audit")).json()["entries"]
    deeds = [each for each in entries if each["object"] == f"disputes/{dispute['id']}"]
    assert [(each["author"], each["action"]) for each in deeds] == [
        ("ops", "upheld_dispute"),
        ("acme", "contested_dispute"),
        ("shop", "open_dispute"),
    ]
    async with broker.engine.connect() as connection:
        rows = await connection.exec_driver_sql(
            f"SELECT kind, account_id FROM events WHERE object = 'disputes/{dispute['id']}'"
            " ORDER BY number"
        )
        told = [tuple(row) for row in rows]
    sides = (shop.account.id, provider.account.id)
    verbs = ("opened", "answered", "decided")
    assert told == [(f"dispute.{verb}", side) for verb in verbs for side in sides]

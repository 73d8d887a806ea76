"""Invoices: exact, numbered, the same for ever once the month is closed."""

from __future__ import annotations

import asyncio
import csv
import io
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy.dialects.postgresql.asyncpg import dialect

from broker.flows.money.invoice import issue_due
from broker.store.books.statement_totals import Whose, _traded
from broker.store.books.statements import Span
from tests.integration.api.conftest import Person, SmallBroker
from tests.integration.api.money.test_refunds import give_back
from tests.integration.api.money.test_statement_totals import usd
from tests.integration.api.recourse import charge, posted, shop
from tests.integration.api.wall import Tell, tell

__all__ = ["shop", "tell"]


async def invoice(person: Person, month: datetime | str, **params: str) -> httpx.Response:
    text = month if isinstance(month, str) else f"{month:%Y-%m}"
    return await person.http.get(f"/api/invoices/{text}", params=params)


async def told(person: Person, month: datetime) -> dict[str, Any]:
    answer = await invoice(person, month)
    assert answer.status_code == 200, answer.text
    return answer.json()


def after_month(moment: datetime, **by: float) -> datetime:
    """So much after the end of the month."""
    following = (moment.replace(day=1) + timedelta(days=32)).replace(day=1)
    return following.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(**by)


async def test_a_month_tells_all_that_moved_the_balance(
    broker: SmallBroker, operator: Person, shop: Person, provider: Person
) -> None:
    call_id = await charge(broker, shop, (0, 300), (1, 100))
    await give_back(operator, call_id, amount_usd="0.00004")
    month = await told(shop, broker.clock())
    assert (month["status"], month["number"], month["issued_at"]) == ("open", None, None)
    assert (month["opening_usd"], month["closing_usd"]) == ("0.00", "0.99964")
    assert [(each["endpoint"], each["total_usd"]) for each in month["endpoints"]] == [
        ("acme/law", "-0.00027"),
        ("globex/law", "-0.00009"),
    ]
    [topup] = month["transfers"]
    assert (topup["kind"], topup["count"], topup["amount_usd"]) == ("topup", 1, "1.00")
    assert month["credit_notes"] == {"count": 1, "first_number": 1, "last_number": 1}
    earned = await told(provider, broker.clock())
    assert (earned["closing_usd"], earned["credit_notes"]) == ("0.000243", None)
    async with broker.engine.connect() as connection:
        assert (await posted(connection, shop.account))["funds"] == usd(month["closing_usd"])


async def test_a_closed_month_stands_whatever_comes_later(
    broker: SmallBroker, operator: Person, shop: Person, tell: Tell
) -> None:
    begun = broker.clock()
    call_id = await charge(broker, shop, (0, 300))
    await tell(after_month(begun, minutes=59))
    assert (await told(shop, begun))["status"] == "open"
    await tell(after_month(begun, hours=1))
    first = await told(shop, begun)
    assert (first["status"], first["number"]) == ("issued", "INV-shop-000001")
    await tell(after_month(begun, days=2))
    assert (await give_back(operator, call_id)).status_code == 201
    assert await told(shop, begun) == first
    second = await told(shop, broker.clock())
    assert (second["opening_usd"], second["closing_usd"]) == (first["closing_usd"], "1.00")
    assert [each["credits_usd"] for each in second["endpoints"]] == ["0.0003"]
    await tell(after_month(after_month(begun), days=1))
    listed = (await shop.http.get("/api/invoices")).json()["invoices"]
    assert [each["number"] for each in listed] == ["INV-shop-000002", "INV-shop-000001"]
    async with broker.engine.begin() as connection:
        with pytest.raises(Exception, match="immutable record"):
            await connection.exec_driver_sql("UPDATE invoices SET closing_nanos = 0")


async def test_a_broker_whose_clock_is_fast_closes_no_month_early(
    broker: SmallBroker, shop: Person
) -> None:
    begun = broker.clock()
    broker.clock = lambda: after_month(begun, days=2)
    assert (await told(shop, begun))["status"] == "open"
    await issue_due(broker.engine, broker.clock())
    assert (await told(shop, begun))["number"] is None


async def test_every_month_is_issued_once_in_order_whoever_asks_first(
    broker: SmallBroker, operator: Person, shop: Person, provider: Person, tell: Tell
) -> None:
    begun = broker.clock()
    await charge(broker, shop, (0, 300))
    third = after_month(after_month(after_month(begun)), days=3)
    await tell(third)
    last = after_month(after_month(begun))
    answers = await asyncio.gather(
        *(told(shop, last) for _ in range(4)), issue_due(broker.engine, third)
    )
    assert len({each["number"] for each in answers[:-1]}) == 1
    months = (await shop.http.get("/api/invoices")).json()["invoices"]
    assert [each["number"][-1] for each in months] == ["3", "2", "1"]
    assert {each["closing_usd"] for each in months} == {"0.9997"}
    async with broker.engine.connect() as connection:
        rows = await connection.exec_driver_sql("SELECT count(*) FROM invoices GROUP BY account_id")
        assert set(rows.scalars()) == {3}
        alarms = await connection.exec_driver_sql("SELECT * FROM replay_invoice_is_its_entries")
        assert alarms.all() == []
    assert await issue_due(broker.engine, third) == 0


async def test_the_replay_finds_the_month_that_was_tampered_with(
    broker: SmallBroker, operator: Person, shop: Person, tell: Tell
) -> None:
    begun = broker.clock()
    call_id = await charge(broker, shop, (0, 300))
    await tell(after_month(after_month(begun), days=2))
    await give_back(operator, call_id)  # of this month, which has no invoice yet
    assert len((await shop.http.get("/api/invoices")).json()["invoices"]) == 2
    async with broker.engine.connect() as connection:
        for number in (1, 2):
            # As nobody could: no trigger looks on, and it is undone.
            await connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
            tampering = "UPDATE invoices SET closing_nanos = closing_nanos + 1 WHERE number = $1"
            await connection.exec_driver_sql(tampering, (number,))
            query = "SELECT * FROM replay_invoice_is_its_entries"
            [alarm] = (await connection.exec_driver_sql(query)).all()
            assert alarm.closing_nanos == alarm.folded_nanos + 1
            await connection.rollback()


async def test_totals_of_a_consumer_read_no_other_consumers_lines(
    broker: SmallBroker, shop: Person
) -> None:
    """However many lines there are in its month; the index of the settlements leads to its own."""
    whose = Whose(shop.account.id, [shop.account.ledger_account], sells=False)
    query = _traded(whose, Span(broker.clock() - timedelta(days=9), broker.clock()))
    text = str(query.compile(dialect=dialect(), compile_kwargs={"literal_binds": True}))
    async with broker.engine.connect() as connection:
        await connection.exec_driver_sql("SET enable_seqscan = off")
        plan = (await connection.exec_driver_sql(f"EXPLAIN {text}")).scalars().all()
    reads = [each for each in plan if " on settlement_lines_" in each]
    assert reads, plan
    assert all("pkey" in each for each in reads), plan


async def test_an_invoice_is_a_table_and_a_page_too(
    broker: SmallBroker, operator: Person, shop: Person
) -> None:
    call_id = await charge(broker, shop, (0, 300))
    await give_back(operator, call_id, amount_usd="0.00004")
    rows = list(
        csv.DictReader(io.StringIO((await invoice(shop, broker.clock(), format="csv")).text))
    )
    amounts = [usd(each["amount_usd"]) for each in rows]
    assert sum(amounts[:-1]) == amounts[-1]
    assert rows[-1]["what"] == "closing"
    page = await invoice(shop, broker.clock(), format="html")
    assert page.headers["content-type"].startswith("text/html")
    assert "acme/law" in page.text
    assert "0.99974" in page.text
    assert "<script" not in page.text


async def test_what_is_no_month_is_refused_by_name(shop: Person) -> None:
    for month in ("2026-13", "2026-1", "november", "0000-01", "2026-01-01", "٢٠٢٦-01"):
        answer = await invoice(shop, month)
        assert (answer.status_code, answer.json()["code"]) == (400, "month_malformed")


async def test_there_is_no_month_before_the_account_nor_after_this_one(
    broker: SmallBroker, operator: Person, shop: Person
) -> None:
    for month in ("2001-01", f"{after_month(broker.clock()):%Y-%m}"):
        assert (await invoice(shop, month)).status_code == 404
    assert (await invoice(operator, broker.clock())).status_code == 403


async def test_an_operator_reads_any_accounts_months(
    broker: SmallBroker, operator: Person, shop: Person, provider: Person
) -> None:
    month = f"{broker.clock():%Y-%m}"
    read = await operator.http.get(f"/api/accounts/shop/invoices/{month}")
    assert read.json() == await told(shop, broker.clock())
    assert (await operator.http.get("/api/accounts/shop/invoices")).json() == {"invoices": []}
    foreign = await provider.http.get(f"/api/accounts/shop/invoices/{month}")
    assert foreign.status_code == 403

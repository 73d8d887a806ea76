"""Totals and exports of statements; the ledger's own entries are the oracle."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, text

from broker.store.books.statements import ROWS_AT_ONCE
from tests.integration.api.conftest import Person, SmallBroker
from tests.integration.api.money.test_refunds import give_back
from tests.integration.api.recourse import Told, charge, mature, open_market, pay_out, posted

TOPUP = {"amount_usd": "1", "reason": "=cmd()"}
FOLD = text(
    "SELECT coalesce(sum(amount_nanos), 0) FROM ledger_entries WHERE at >= :since AND at < :until"
    " AND ledger_account_id IN (SELECT id FROM ledger_accounts WHERE owner_id = :owner)"
)
BEGINNING, END = (
    datetime.fromisoformat("2000-01-01T00:00Z"),
    datetime.fromisoformat("2999-01-01T00:00Z"),
)


@pytest.fixture
async def shop(
    broker: SmallBroker,
    operator: Person,
    consumer: Person,
    provider: Person,
    other_provider: Person,
) -> Person:
    """A consumer with a dollar, in a market of two endpoints."""
    await open_market(broker, provider, other_provider)
    await operator.http.post("/api/accounts/shop/topups", json=TOPUP)
    return consumer


async def trade(broker: SmallBroker, operator: Person, shop: Person, random: Random) -> datetime:
    """Some calls of all kinds, refunds and top-ups; returns a time in their midst."""
    called: list[UUID] = []
    middle = broker.clock()
    for step in range(16):
        if step == 8:
            middle = broker.clock()
        told = Told(
            key_id=random.choice(["k1", "k2"]),
            domain=random.choice(["law", "tickets", None]),
            task_label=random.choice(["summarise", "+1", None]),
            model=random.choice(["auto", "tiny"]),
            labels=random.choice([{"team": "a", "run": "7"}, {"team": "=b"}, {"run": "8"}, None]),
        )
        shares = [(number, random.randint(1, 999)) for number in range(random.randint(1, 2))]
        called.append(await charge(broker, shop, *shares, told=told))
        if step % 3 == 0:
            amount = f"0.{random.randint(1, 999):09}"
            await give_back(operator, random.choice(called), amount_usd=amount)
        if step % 8 == 0:
            await operator.http.post("/api/accounts/shop/topups", json=TOPUP)
    return middle


def usd(text: str) -> int:
    return int(Decimal(text) * 10**9)


@pytest.mark.parametrize("seed", [1, 2])
async def test_totals_sum_to_the_movement_of_the_balance_by_whatever_they_are(
    broker: SmallBroker, operator: Person, shop: Person, provider: Person, seed: int
) -> None:
    random = Random(seed)
    middle = await trade(broker, operator, shop, random)
    await mature(broker, provider.account, broker.clock())
    pending = (await posted_of(broker, provider))["available"]
    await pay_out(broker, provider.account, pending // 2)
    spans = [(BEGINNING, END), (BEGINNING, middle), (middle, END)]
    for person, kinds in (
        (shop, ("key", "endpoint", "domain", "model", "task_label", "day", "label")),
        (provider, ("endpoint", "day")),
    ):
        for since, until in spans:
            moved = await folded(broker, person, since, until)
            for by in kinds:
                told = await totals(person, by, since, until)
                assert usd(told["whole"]["total_usd"]) == moved
                assert sum(usd(each["total_usd"]) for each in told["groups"]) == moved
    whole = await totals(shop, "key", BEGINNING, END)
    assert {each["group"] for each in whole["groups"]} == {"k1", "k2", None}
    assert sum(each["calls"] for each in whole["groups"]) == 16


async def posted_of(broker: SmallBroker, person: Person) -> dict[str, int]:
    async with broker.engine.connect() as connection:
        return await posted(connection, person.account)


async def folded(broker: SmallBroker, person: Person, since: datetime, until: datetime) -> int:
    async with broker.engine.connect() as connection:
        bounds = {"since": since, "until": until, "owner": person.account.id}
        return int(await connection.scalar(FOLD, bounds))


async def totals(person: Person, by: str, since: datetime, until: datetime) -> dict:
    params = {"by": by, "from": since.isoformat(), "to": until.isoformat()}
    if by == "label":
        params["label"] = "team"
    answer = await person.http.get("/api/statement/totals", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_refund_counts_for_the_key_endpoint_and_label_of_its_call(
    broker: SmallBroker, operator: Person, shop: Person
) -> None:
    told = Told("k9", "chat", "law", "a", model="tiny", labels={"team": "b", "run": "7"})
    call_id = await charge(broker, shop, (0, 300), (1, 100), told=told)
    await give_back(operator, call_id, amount_usd="0.00004")
    for by, group, back in (
        ("key", "k9", "0.00004"),
        ("domain", "law", "0.00004"),
        ("task_label", "a", "0.00004"),
        ("model", "tiny", "0.00004"),
        ("label", "b", "0.00004"),
        ("endpoint", "globex/law", "0.00001"),
    ):
        found = await totals(shop, by, BEGINNING, END)
        [row] = [each for each in found["groups"] if each["group"] == group]
        assert (row["calls"], row["credits_usd"], row["other_usd"]) == (1, back, "0.00")


async def test_who_bought_what_is_none_of_a_providers_affairs(
    broker: SmallBroker, shop: Person, provider: Person
) -> None:
    for asked in ("by=key", "by=domain", "by=task_label", "by=model", "by=label&label=team"):
        answer = await provider.http.get(f"/api/statement/totals?{asked}")
        assert answer.status_code == 400


async def test_a_label_is_named_where_it_is_asked_for_and_nowhere_else(shop: Person) -> None:
    wrong = ("by=label", "by=label&label=", "by=key&label=team", "label=team")
    for asked in ("by=colour", "by=task", *wrong):
        answer = await shop.http.get(f"/api/statement/totals?{asked}")
        assert answer.status_code == 400, asked
    unused = await shop.http.get("/api/statement/totals?by=label&label=none")
    assert [each["group"] for each in unused.json()["groups"]] == [None]


@pytest.mark.parametrize("asked", ["query", "header"])
async def test_a_statement_as_a_table_holds_every_entry_and_runs_nothing(
    broker: SmallBroker, operator: Person, shop: Person, asked: str
) -> None:
    await trade(broker, operator, shop, Random(3))
    get = {"query": by_query, "header": by_header}[asked]
    text = await get(shop, "/api/statement")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert sum(usd(each["amount_usd"]) for each in rows) == await folded(
        broker, shop, BEGINNING, END
    )
    assert [each["at"] for each in rows] == sorted(each["at"] for each in rows)
    assert {each["at"][-1] for each in rows} == {"Z"}
    assert {each["reason"] for each in rows if each["kind"] == "topup"} == {"'=cmd()"}
    sums = list(csv.DictReader(io.StringIO(await get(shop, "/api/statement/totals?by=task_label"))))
    assert sum(usd(each["total_usd"]) for each in sums) == await folded(
        broker, shop, BEGINNING, END
    )
    assert "'+1" in {each["task_label"] for each in sums}
    by_team = await get(shop, "/api/statement/totals?by=label&label=team")
    assert {each["team"] for each in csv.DictReader(io.StringIO(by_team))} >= {"a", "'=b", ""}


async def test_a_statement_as_a_table_is_read_in_small_parts(
    broker: SmallBroker, operator: Person, shop: Person
) -> None:
    await trade(broker, operator, shop, Random(3))
    at_once: list[object] = []

    def note(*told: Any) -> None:
        at_once.append(told[4].execution_options.get("yield_per"))

    event.listen(broker.engine.sync_engine, "before_cursor_execute", note)
    await by_query(shop, "/api/statement")
    event.remove(broker.engine.sync_engine, "before_cursor_execute", note)
    assert [each for each in at_once if each is not None] == [ROWS_AT_ONCE]


async def by_query(person: Person, path: str) -> str:
    answer = await person.http.get(path + ("&" if "?" in path else "?") + "format=csv")
    assert answer.headers["content-type"].startswith("text/csv")
    return answer.text


async def by_header(person: Person, path: str) -> str:
    answer = await person.http.get(path, headers={"accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    return answer.text

"""Accounts come with their ledger account; keys are shown once and die at once."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select

from broker.errors import Conflict, NotFound, RequestMalformed
from broker.store.access import accounts, audit, keys
from broker.store.access.accounts import Role
from broker.store.access.key_text import parse
from broker.store.access.keys import KeyTerms
from broker.store.tables import balances, ledger_accounts
from broker.store.tables import keys as key_table
from tests.integration.catalog.offers import LATER, NOW, open_account


@pytest.mark.parametrize(
    ("role", "kind"), [(Role.CONSUMER, "funds"), (Role.PROVIDER, "earnings"), (Role.OPERATOR, None)]
)
async def test_an_account_opens_with_the_ledger_account_of_its_role(engine, role, kind):
    account = await open_account(engine, role, "someone")
    async with engine.connect() as connection:
        assert await accounts.by_id(connection, account.id) == account
        assert await accounts.by_name(connection, "someone") == account
        query = (
            select(ledger_accounts.c.id, ledger_accounts.c.kind, balances.c.posted_nanos)
            .join(balances, balances.c.ledger_account_id == ledger_accounts.c.id)
            .where(ledger_accounts.c.owner_id == account.id)
        )
        rows = (await connection.execute(query)).all()
    further = {"available", "transit", "receivable"} if role is Role.PROVIDER else set()
    assert {row.kind for row in rows} == ({kind} | further if kind else set())
    assert {row.posted_nanos for row in rows} <= {0}
    assert [row.id for row in rows if row.kind == kind] == ([account.ledger_account] * bool(kind))


@pytest.mark.parametrize("name", ["", "Acme", "a--b", "a/b", "-a", "a b", "x" * 64])
async def test_a_bad_name_is_refused(engine, name):
    with pytest.raises(RequestMalformed):
        await open_account(engine, Role.CONSUMER, name)


async def test_a_name_is_taken_once_even_when_two_ask_at_once(engine):
    opened = await asyncio.gather(
        *(open_account(engine, Role.CONSUMER, "firm") for _ in range(4)), return_exceptions=True
    )
    assert sum(isinstance(each, Conflict) for each in opened) == 3


async def test_accounts_are_listed_page_by_page(engine):
    names = ["one", "two", "three"]
    for name in names:
        await open_account(engine, Role.CONSUMER, name)
    await open_account(engine, Role.PROVIDER, "acme")
    async with engine.connect() as connection:
        first = await accounts.list_accounts(connection, role=Role.CONSUMER, limit=2)
        rest = await accounts.list_accounts(connection, role=Role.CONSUMER, after=first[-1].id)
        with pytest.raises(NotFound):
            await accounts.by_name(connection, "nobody")
    assert [each.name for each in (*first, *rest)] == names


async def test_a_key_is_shown_once_and_kept_as_its_hash(engine):
    firm = await open_account(engine, Role.CONSUMER, "firm")
    terms = KeyTerms("laptop", calls_max=3, content_kept="replay")
    async with engine.begin() as connection:
        issued = await keys.issue(connection, firm.id, terms, NOW)
        (row,) = (await connection.execute(select(key_table))).all()
        loaded = await keys.load_all(connection, NOW)
        (listed,) = await keys.list_keys(connection, firm.id)
    parts = parse(issued.text)
    assert parts is not None
    assert parts[0] == issued.id
    assert parts[1] not in str(row)
    key = loaded[issued.id]
    assert key.opens(parts[1], NOW)
    assert not key.opens(parts[1] + "x", NOW)
    assert (key.account_name, key.role, key.funds) == ("firm", Role.CONSUMER, firm.ledger_account)
    assert (key.terms.calls_max, key.content_kept) == (3, "replay")
    assert listed.terms == terms


async def test_a_providers_key_spends_nothing(engine, acme):
    async with engine.begin() as connection:
        issued = await keys.issue(connection, acme.id, KeyTerms(), NOW)
        assert (await keys.load_all(connection, NOW))[issued.id].funds is None


async def test_revoked_expired_and_closed_keys_open_nothing(engine):
    firm = await open_account(engine, Role.CONSUMER, "firm")
    gone = await open_account(engine, Role.CONSUMER, "gone")
    brief = KeyTerms(expires_at=NOW + timedelta(seconds=30))
    async with engine.begin() as connection:
        revoked = await keys.issue(connection, firm.id, KeyTerms(), NOW)
        expiring = await keys.issue(connection, firm.id, brief, NOW)
        orphan = await keys.issue(connection, gone.id, KeyTerms(), NOW)
        before = await keys.load_all(connection, NOW)
        await keys.revoke(connection, revoked.id, NOW)
        await keys.revoke(connection, revoked.id, NOW)
        await accounts.close(connection, gone.id, NOW)
        assert await keys.load_all(connection, LATER) == {}
        with pytest.raises(NotFound):
            await keys.issue(connection, gone.id, KeyTerms(), NOW)
    assert set(before) == {revoked.id, expiring.id, orphan.id}
    secret = expiring.text.rpartition("_")[2]
    assert before[expiring.id].opens(secret, NOW)
    assert not before[expiring.id].opens(secret, LATER)


async def test_another_accounts_key_is_not_found(engine, acme):
    firm = await open_account(engine, Role.CONSUMER, "firm")
    async with engine.begin() as connection:
        issued = await keys.issue(connection, firm.id, KeyTerms(), NOW)
        with pytest.raises(NotFound):
            await keys.read(connection, issued.id, owner=acme.id)
        assert (await keys.read(connection, issued.id, owner=firm.id)).id == issued.id


@pytest.mark.parametrize("text", ["", "bk_", "bk_a_", "bk__b", "sk_a_b", "bk_a_b_c", "bk_a"])
def test_what_has_not_the_form_of_a_key_is_none(text):
    assert parse(text) is None


async def test_deeds_are_read_newest_first(engine):
    async with engine.begin() as connection:
        for number in range(3):
            deed = audit.Deed("operator", "test", f"things/{number}", {"number": number})
            await audit.record(connection, deed, NOW)
        newest = await audit.list_entries(connection, limit=2)
        rest = await audit.list_entries(connection, before=newest[-1].id)
    assert [each.deed.detail["number"] for each in (*newest, *rest)] == [2, 1, 0]

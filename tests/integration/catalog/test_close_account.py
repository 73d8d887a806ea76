"""An account is closed for good: its keys and what it has on the market go, its money stays."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_network

import pytest

from broker.core.catalog import ListingStatus
from broker.core.key_terms import KeyTerms
from broker.errors import Conflict, NotFound
from broker.flows.access.authenticate import Caller
from broker.flows.access.close_account import close_account
from broker.flows.money.topup import adjust, top_up
from broker.flows.providers import enroll
from broker.flows.providers.enroll import Enrolment
from broker.store.access import accounts, audit, keys
from broker.store.access.accounts import Role
from broker.store.market import deployments
from broker.upstream.addresses import AddressPolicy
from tests.integration.catalog.offers import NOW, SEALER, TAKE_BPS, offer, open_account

LOOPBACK = AddressPolicy([ip_network("127.0.0.0/8")])


async def test_a_closed_provider_has_no_keys_and_nothing_on_the_market(engine, acme):
    boss = await open_account(engine, Role.OPERATOR, "boss")
    operator = Caller(boss.id, boss.name, boss.role)
    desk = Enrolment(engine, SEALER, LOOPBACK, TAKE_BPS, lambda: datetime.now(UTC), lambda: 1_000)
    provider = Caller(acme.id, acme.name, acme.role)
    await enroll.register(desk, provider, offer(url="http://127.0.0.1:9"))
    async with engine.begin() as connection:
        await keys.issue(connection, acme.id, KeyTerms(), NOW)
    await close_account(engine, operator, acme.name, "left", NOW)
    async with engine.connect() as connection:
        assert await keys.load_all(connection, NOW) == {}
        (record,) = await deployments.list_deployments(connection)
        assert (await accounts.by_name(connection, acme.name)).closed_at == NOW
        deed = (await audit.list_entries(connection))[0].deed
    assert record.deployment.status is ListingStatus.WITHDRAWN
    assert (deed.action, deed.target) == ("close_account", f"accounts/{acme.name}")
    assert deed.detail == {"reason": "left"}
    with pytest.raises(NotFound):
        await close_account(engine, operator, acme.name, "again", NOW)


async def test_a_closed_provider_registers_nothing_that_it_began_to_before(engine, acme):
    boss = await open_account(engine, Role.OPERATOR, "boss")
    desk = Enrolment(engine, SEALER, LOOPBACK, TAKE_BPS, lambda: datetime.now(UTC), lambda: 1_000)
    provider = Caller(acme.id, acme.name, acme.role)
    await close_account(engine, Caller(boss.id, boss.name, boss.role), acme.name, "left", NOW)
    with pytest.raises(NotFound, match="open account"):
        await enroll.register(desk, provider, offer(url="http://127.0.0.1:9"))
    async with engine.connect() as connection:
        assert await deployments.list_deployments(connection) == []


async def test_the_account_of_the_consoles_links_and_ones_own_stay_open(engine):
    for name in ("operator", "boss"):
        account = await open_account(engine, Role.OPERATOR, name)
    own = Caller(account.id, account.name, account.role)
    for name in ("operator", "boss"):
        with pytest.raises(Conflict, match="stays open"):
            await close_account(engine, own, name, "no", NOW)


async def test_a_closed_account_is_topped_up_no_more_but_its_balance_can_be_corrected(engine):
    boss, shop = [await open_account(engine, *each) for each in _BOSS_AND_SHOP]
    operator = Caller(boss.id, boss.name, boss.role)
    await top_up(engine, operator, shop.name, 5_000, "paid", NOW)
    await close_account(engine, operator, shop.name, "left", NOW)
    with pytest.raises(Conflict, match="'shop' is closed"):
        await top_up(engine, operator, shop.name, 5_000, "paid", NOW)
    corrected = await adjust(engine, operator, shop.name, -5_000, "paid back", NOW)
    assert corrected.available_nanos == 0


_BOSS_AND_SHOP = ((Role.OPERATOR, "boss"), (Role.CONSUMER, "shop"))

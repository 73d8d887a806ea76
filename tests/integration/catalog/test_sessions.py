"""Sessions of the console end one by one: what ends one person's leaves all others."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.key_terms import KeyTerms
from broker.store.access import keys, sessions
from broker.store.access.accounts import Account, Role
from broker.store.access.sessions import ConsoleSession
from tests.integration.catalog.offers import NOW, open_account

SOON, LATER = NOW + timedelta(hours=1), NOW + timedelta(hours=12)


async def logged_in(
    connection: AsyncConnection, account: Account, token: str, key_id: str | None = None
) -> ConsoleSession:
    session = ConsoleSession(
        account.id, account.name, account.role, f"csrf of {token}", LATER, key_id
    )
    await sessions.insert_session(connection, token, session, NOW)
    return session


async def test_a_token_opens_its_own_session_and_logging_out_ends_no_other(
    engine: AsyncEngine,
) -> None:
    firm = await open_account(engine, Role.CONSUMER, "firm")
    shop = await open_account(engine, Role.CONSUMER, "shop")
    async with engine.begin() as connection:
        assert await sessions.find_session(connection, "a", NOW) is None
        first = await logged_in(connection, firm, "a")
        assert await sessions.find_session(connection, "b", NOW) is None
        second = await logged_in(connection, shop, "b")
        assert await sessions.find_session(connection, "a", NOW) == first
        await sessions.delete_session(connection, "a")
        assert await sessions.find_session(connection, "a", NOW) is None
        assert await sessions.find_session(connection, "b", NOW) == second


async def test_the_end_of_a_secret_shortens_the_sessions_of_its_key_alone(
    engine: AsyncEngine,
) -> None:
    firm = await open_account(engine, Role.CONSUMER, "firm")
    async with engine.begin() as connection:
        mine = (await keys.issue(connection, firm.id, KeyTerms(), NOW)).id
        other = (await keys.issue(connection, firm.id, KeyTerms(), NOW)).id
        for token, key_id in (("mine", mine), ("other", other), ("link", None)):
            await logged_in(connection, firm, token, key_id)
        for until in (SOON, LATER):
            await sessions.shorten_sessions(connection, mine, until)
        ends = {}
        for token in ("mine", "other", "link"):
            found = await sessions.find_session(connection, token, NOW)
            assert found is not None
            ends[token] = found.expires_at
        assert ends == {"mine": SOON, "other": LATER, "link": LATER}


async def test_a_link_is_good_until_its_time_and_for_its_own_account(engine: AsyncEngine) -> None:
    firm = await open_account(engine, Role.CONSUMER, "firm")
    shop = await open_account(engine, Role.CONSUMER, "shop")
    async with engine.begin() as connection:
        for token, account in (("a", firm), ("b", shop), ("c", shop)):
            await sessions.insert_link(connection, token, account.id, NOW, SOON)
        assert await sessions.use_link(connection, "a", NOW) == firm.id
        assert await sessions.use_link(connection, "b", SOON - timedelta(microseconds=1)) == shop.id
        assert await sessions.use_link(connection, "c", SOON) is None

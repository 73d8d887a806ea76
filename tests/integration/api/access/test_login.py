"""Login links and console sessions."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import httpx
import pytest

from broker.errors import CallerUnknown
from broker.flows.access.login import (
    LINK_LIFETIME,
    SESSION_COOKIE,
    SESSION_LIFETIME,
    close_session,
    make_link,
    redeem,
)
from broker.store.access import accounts, sessions
from tests.integration.api.conftest import Person, SmallBroker


async def test_a_link_logs_in_once(broker: SmallBroker, consumer: Person) -> None:
    token = await make_link(broker.engine, consumer.account.id, broker.clock())
    login = await redeem(broker.engine, token, broker.clock())
    assert login.session.account_id == consumer.account.id
    assert login.session.csrf_token not in (login.token, token)
    with pytest.raises(CallerUnknown):
        await redeem(broker.engine, token, broker.clock())


async def test_of_many_visitors_with_one_link_one_gets_in(
    broker: SmallBroker, consumer: Person
) -> None:
    token = await make_link(broker.engine, consumer.account.id, broker.clock())
    visits = [redeem(broker.engine, token, broker.clock()) for _ in range(5)]
    ends = await asyncio.gather(*visits, return_exceptions=True)
    refused = [each for each in ends if isinstance(each, BaseException)]
    assert len(refused) == 4
    assert all(isinstance(each, CallerUnknown) for each in refused)


async def test_an_old_link_and_an_unknown_one_are_refused(
    broker: SmallBroker, consumer: Person
) -> None:
    token = await make_link(broker.engine, consumer.account.id, broker.clock())
    with pytest.raises(CallerUnknown):
        await redeem(broker.engine, token, broker.clock() + LINK_LIFETIME)
    with pytest.raises(CallerUnknown):
        await redeem(broker.engine, "nonsense", broker.clock())


async def test_a_session_reads_and_never_writes(
    broker: SmallBroker, operator: Person, stranger: httpx.AsyncClient
) -> None:
    token = await make_link(broker.engine, operator.account.id, broker.clock())
    login = await redeem(broker.engine, token, broker.clock())
    stranger.cookies.set(SESSION_COOKIE, login.token)
    assert (await stranger.get("/api/accounts")).status_code == 200
    opened = await stranger.post("/api/accounts", json={"name": "x", "role": "consumer"})
    assert opened.status_code == 401
    await close_session(broker.engine, login.token)
    ended = await stranger.get("/api/accounts")
    assert (ended.status_code, ended.json()["code"]) == (401, "session_ended")


async def test_a_session_ends_by_itself_and_with_its_account(
    broker: SmallBroker, consumer: Person
) -> None:
    now = broker.clock()
    token = await make_link(broker.engine, consumer.account.id, now)
    login = await redeem(broker.engine, token, now)
    async with broker.engine.begin() as connection:
        assert await sessions.find_session(connection, login.token, now) == login.session
        later = now + SESSION_LIFETIME
        assert await sessions.find_session(connection, login.token, later) is None
        await accounts.close(connection, consumer.account.id, now)
        assert await sessions.find_session(connection, login.token, now) is None


async def test_what_has_expired_is_swept(broker: SmallBroker, consumer: Person) -> None:
    now = broker.clock()
    await redeem(broker.engine, await make_link(broker.engine, consumer.account.id, now), now)
    await make_link(broker.engine, consumer.account.id, now)
    async with broker.engine.begin() as connection:
        assert await sessions.delete_expired(connection, now) == 0
        assert await sessions.delete_expired(connection, now + LINK_LIFETIME) == 2
        assert await sessions.delete_expired(connection, now + timedelta(days=1)) == 1


async def test_no_token_stands_in_the_database(broker: SmallBroker, consumer: Person) -> None:
    token = await make_link(broker.engine, consumer.account.id, broker.clock())
    login = await redeem(broker.engine, token, broker.clock())
    async with broker.engine.connect() as connection:
        for table in ("login_links", "console_sessions"):
            rows = (await connection.exec_driver_sql(f"SELECT * FROM {table}")).all()
            assert rows
            assert token not in str(rows)
            assert login.token not in str(rows)

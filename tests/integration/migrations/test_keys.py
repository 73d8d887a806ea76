"""Keys of before open what they opened, without any of the limits that came later."""

from __future__ import annotations

from datetime import UTC, datetime

import asyncpg
import pytest

from broker.core.key_terms import ALL_SCOPES
from broker.store.access import keys, sessions
from broker.store.access.key_text import sha256_of
from broker.store.database import create_engine
from tests.integration.migrations.upgrading import DatabaseAt, insert_account

SECRET, TOKEN = "s" * 43, "t" * 43


async def test_a_key_and_a_session_of_before_are_as_good_as_ever(database_at: DatabaseAt) -> None:
    now = datetime.now(UTC)
    async with database_at("0002") as old:
        owner, _ = await insert_account(old.driver, "consumer", "shop")
        await old.driver.execute(
            "INSERT INTO keys (id, account_id, secret_sha256, label, calls_max, created_at)"
            " VALUES ('older', $1, $2, 'laptop', 7, $3)",
            *(owner, sha256_of(SECRET), now),
        )
        await old.driver.execute(
            "INSERT INTO console_sessions"
            " VALUES ($1, $2, 'csrf', now(), now() + interval '1 hour')",
            *(sha256_of(TOKEN), owner),
        )
        await old.upgrade("head")
        engine = create_engine(old.url, connections_max=1)
        async with engine.connect() as connection:
            key = (await keys.load_all(connection, now))["older"]
            session = await sessions.find_session(connection, TOKEN, now)
        await engine.dispose()
        assert key.opens(SECRET, now)
        assert (key.terms.label, key.terms.calls_max) == ("laptop", 7)
        assert key.terms.scopes == ALL_SCOPES
        assert (key.terms.rates, key.terms.allowance) == (None, None)
        assert session is not None
        assert (session.account_id, session.key_id, session.terms) == (owner, None, None)


async def test_the_schema_refuses_terms_that_make_no_sense(database_at: DatabaseAt) -> None:
    async with database_at("0003") as new:
        owner, _ = await insert_account(new.driver, "consumer", "shop")
        await new.driver.execute(
            "INSERT INTO keys (id, account_id, secret_sha256, created_at)"
            " VALUES ('one', $1, $2, now())",
            *(owner, sha256_of(SECRET)),
        )
        for change in (
            "scopes = '{}'",
            "scopes = '{calls,everything}'",
            "requests_per_minute = 0",
            "tokens_per_minute = -1",
            "models = '{}'",
            "former_sha256 = secret_sha256",
            "former_until = now()",
            "former_sha256 = 'short', former_until = now()",
        ):
            with pytest.raises(asyncpg.CheckViolationError):
                await new.driver.execute(f"UPDATE keys SET {change}")
        await new.driver.execute("UPDATE keys SET scopes = '{calls,read}', domains = '{law}'")

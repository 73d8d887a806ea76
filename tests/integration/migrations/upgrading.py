"""A database at a revision of the test's choice: upgrade to N, put data in, upgrade to N + 1, look.

    async def test_what_was_there_is_there_still(database_at: DatabaseAt) -> None:
        async with database_at("0007") as old:
            await old.driver.execute("INSERT INTO ...")
            await old.upgrade("0008")
            assert await old.driver.fetch("SELECT ...") == ...

At the end every invariant view of the revision reached must be empty.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from broker.store.migrate import upgrade
from tests.conftest import broken_invariants, named

_numbers = itertools.count(1)


@dataclass(frozen=True)
class OldDatabase:
    """A database on its way through the revisions."""

    url: str
    driver: asyncpg.Connection

    async def upgrade(self, revision: str = "head") -> None:
        """Bring it to `revision`, as a newer broker would at its start."""
        # What the driver had prepared is of the former schema.
        await upgrade(self.url, revision)
        await self.driver.reload_schema_state()


DatabaseAt = Callable[[str], AbstractAsyncContextManager[OldDatabase]]


@contextlib.asynccontextmanager
async def old_database(
    server_url: str, office: asyncpg.Connection, revision: str
) -> AsyncIterator[OldDatabase]:
    """An empty database at `revision`, dropped at the end."""
    name = f"old_{next(_numbers)}"
    await office.execute(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY FILE_COPY")
    url = named(server_url, name)
    try:
        await upgrade(url, revision)
        driver = await asyncpg.connect(url)
        try:
            yield OldDatabase(url, driver)
        finally:
            await driver.close()
        alarms = await broken_invariants(url)
    finally:
        await office.execute(f"DROP DATABASE {name} WITH (FORCE)")
    if alarms:
        pytest.fail("\n".join(["the migration left broken invariants:", *alarms]))


async def insert_account(driver: asyncpg.Connection, role: str, name: str) -> tuple[UUID, UUID]:
    """An account as revision 0001 made it; returns its id and that of its ledger account."""
    owner, purse = uuid7(), uuid7()
    now = datetime.now(UTC)
    await driver.execute("INSERT INTO accounts VALUES ($1, $2, $3, $4)", owner, role, name, now)
    kind = {"consumer": "funds", "provider": "earnings"}[role]
    await driver.execute(
        "INSERT INTO ledger_accounts (id, owner_id, kind, created_at) VALUES ($1, $2, $3, $4)",
        *(purse, owner, kind, now),
    )
    await driver.execute("INSERT INTO balances (ledger_account_id) VALUES ($1)", purse)
    return owner, purse


async def insert_topup(driver: asyncpg.Connection, purse: UUID, amount_nanos: int) -> None:
    """Money from the world on a ledger account."""
    world = await driver.fetchval("SELECT id FROM ledger_accounts WHERE kind = 'world'")
    await driver.execute(
        "INSERT INTO transfers (id, debit_id, credit_id, amount_nanos, kind, author, created_at)"
        " VALUES ($1, $2, $3, $4, 'topup', 'test', now())",
        *(uuid7(), world, purse, amount_nanos),
    )
    for account, change in ((world, -amount_nanos), (purse, amount_nanos)):
        await driver.execute(
            "UPDATE balances SET posted_nanos = posted_nanos + $2 WHERE ledger_account_id = $1",
            *(account, change),
        )

"""Builders of what a ledger test needs: accounts with money, holds, settlements, and the books."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
from uuid_utils.compat import uuid7

from broker.core.ledger import CallRecord, Hold, Settlement, line, settlement
from broker.store import ledger
from pricing.book import Rate

PROCESS = 1
ENDPOINT = uuid7()
RATE = Rate(rate_in_micros=1_000_000, rate_out_micros=2_000_000, rate_call_nanos=0)
"""A dollar per million tokens in: 1,000 nano-dollars a token."""

_names = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Standing:
    """One row of balances."""

    posted_nanos: int
    held_nanos: int


async def open_account(connection: asyncpg.Connection, role: str, funds_nanos: int = 0) -> UUID:
    """A consumer with funds, or a provider; returns the ledger account."""
    owner, account = uuid7(), uuid7()
    kind = {"consumer": "funds", "provider": "earnings"}[role]
    async with connection.transaction():
        await connection.execute(
            "INSERT INTO accounts (id, role, name, created_at) VALUES ($1, $2, $3, now())",
            owner,
            role,
            f"{role}-{next(_names)}",
        )
        await connection.execute(
            "INSERT INTO ledger_accounts (id, owner_id, kind, created_at)"
            " VALUES ($1, $2, $3, now())",
            account,
            owner,
            kind,
        )
        await connection.execute("INSERT INTO balances (ledger_account_id) VALUES ($1)", account)
        if funds_nanos:
            await fund(connection, account, funds_nanos)
    return account


async def fund(connection: asyncpg.Connection, account: UUID, amount_nanos: int) -> None:
    """Money from the world, as a top-up would bring it."""
    world = await connection.fetchval("SELECT id FROM ledger_accounts WHERE kind = 'world'")
    await connection.execute(
        "INSERT INTO transfers (id, debit_id, credit_id, amount_nanos, kind, author, created_at)"
        " VALUES ($1, $2, $3, $4, 'topup', 'test', now())",
        uuid7(),
        world,
        account,
        amount_nanos,
    )
    for id_, change in ((world, -amount_nanos), (account, amount_nanos)):
        await connection.execute(
            "UPDATE balances SET posted_nanos = posted_nanos + $2 WHERE ledger_account_id = $1",
            id_,
            change,
        )


async def open_key(connection: asyncpg.Connection, account: UUID) -> str:
    """A key of the owner of a ledger account; returns its id."""
    key_id = f"key{next(_names)}"
    await connection.execute(
        "INSERT INTO keys (id, account_id, secret_sha256, created_at)"
        " SELECT $2, owner_id, sha256(''), now() FROM ledger_accounts WHERE id = $1",
        account,
        key_id,
    )
    return key_id


async def standing(connection: asyncpg.Connection, account: UUID) -> Standing:
    """What the books say of an account now."""
    row = await connection.fetchrow(
        "SELECT posted_nanos, held_nanos FROM balances WHERE ledger_account_id = $1", account
    )
    return Standing(*row)


async def ledger_connection(url: str) -> asyncpg.Connection:
    """A bare connection, prepared as the lanes prepare theirs."""
    connection = await asyncpg.connect(url)
    await ledger.prepare_session(connection)
    return connection


def a_hold(
    account: UUID,
    amount_nanos: int,
    lasts_s: float = 400.0,
    *,
    key_id: str = "key",
    at: datetime | None = None,
) -> Hold:
    """A hold of a new call, admitted now or at `at`."""
    now = at or datetime.now(UTC)
    return Hold(uuid7(), account, key_id, amount_nanos, now, now + timedelta(seconds=lasts_s))


def a_record(hold: Hold, charge_nanos: int, story: bytes = b"story") -> CallRecord:
    """The log row of a call."""
    return CallRecord(
        id=hold.call_id,
        created_at=hold.created_at,
        account_id=uuid7(),
        key_id=hold.key_id,
        task="chat",
        model="auto",
        domain="law",
        stream=False,
        status=200,
        code="",
        endpoint_number=3,
        price_version=7,
        hold_nanos=hold.amount_nanos,
        charge_nanos=charge_nanos,
        tokens_in=0,
        tokens_out=0,
        ttft_ms=12.5,
        duration_ms=300.0,
        task_label=None,
        session_id='a "quoted" sëssion',
        labels_json='{"team": "a"}',
        story=story,
    )


def a_capture(hold: Hold, *shares: tuple[UUID, int], recorded: bool = True) -> Settlement:
    """A settlement that charges each payee's tokens in, 1,000 nano-dollars each."""
    lines = tuple(
        line(attempt, ENDPOINT, payee, (tokens_in, 0), (RATE, 7, 1_000))
        for attempt, (payee, tokens_in) in enumerate(shares, 1)
    )
    charge = sum(each.charge_nanos for each in lines)
    record = a_record(hold, charge) if recorded else None
    return settlement(hold, lines, datetime.now(UTC), record)


async def trade(connection: asyncpg.Connection, consumer: UUID, provider: UUID, take: UUID) -> None:
    """A call that costs the consumer 10,000 nano-dollars, of which the provider gets 9,000."""
    hold = a_hold(consumer, 100_000)
    await ledger.hold_batch(connection, [hold], PROCESS)
    await ledger.settle_batch(connection, [a_capture(hold, (provider, 10))], take)


async def backdate(connection: asyncpg.Connection, age: timedelta) -> None:
    """Make all records so far older, as the passing of time would."""
    moved = {
        "holds": ("created_at", "expires_at"),
        "settlements": ("settled_at", "held_at"),
        "settlement_lines": ("settled_at",),
        "transfers": ("created_at",),
        "calls": ("created_at",),
    }
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        for table, columns in moved.items():
            changes = ", ".join(f"{column} = {column} - $1::interval" for column in columns)
            await connection.execute(f"UPDATE {table} SET {changes}", age)

"""Accounts, each opened together with the ledger account that its money is kept in."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, and_, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.errors import Conflict, NotFound, RequestMalformed
from broker.store import changes
from broker.store.tables import accounts, balances, ledger_accounts

_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_NAME_CHARACTERS_MAX = 63
_LIST_MAX = 1_000


class Role(enum.StrEnum):
    """What an account is in the market."""

    CONSUMER = "consumer"
    PROVIDER = "provider"
    OPERATOR = "operator"


LEDGER_KINDS = {Role.CONSUMER: "funds", Role.PROVIDER: "earnings"}
"""The kind of ledger account that each role has; an operator has none."""


@dataclass(frozen=True, slots=True)
class Account:
    """One taker of part. `ledger_account` is its funds or earnings, None for an operator."""

    id: UUID
    role: Role
    name: str
    ledger_account: UUID | None
    created_at: datetime
    closed_at: datetime | None


async def create(connection: AsyncConnection, role: Role, name: str, now: datetime) -> Account:
    """Open an account and its ledger account.

    Raises RequestMalformed for a bad name, Conflict for a taken one.
    """
    if len(name) > _NAME_CHARACTERS_MAX or not _NAME.fullmatch(name):
        raise RequestMalformed(
            "An account's name is 1 to 63 lower-case letters and digits, with single . _ - between."
        )
    opened = await connection.execute(
        upsert(accounts)
        .values(id=uuid7(), role=role.value, name=name, created_at=now)
        .on_conflict_do_nothing(index_elements=["name"])
        .returning(accounts.c.id)
    )
    account_id: UUID | None = opened.scalar_one_or_none()
    if account_id is None:
        raise Conflict(f"There is an account named '{name}' already.")
    ledger_account = await _open_ledger_account(connection, account_id, role, now)
    await changes.announce(connection, changes.KEYS)
    return Account(account_id, role, name, ledger_account, now, None)


async def _open_ledger_account(
    connection: AsyncConnection, account_id: UUID, role: Role, now: datetime
) -> UUID | None:
    kind = LEDGER_KINDS.get(role)
    if kind is None:
        return None
    ledger_account = uuid7()
    # With earnings, the database opens their purses, see `broker.store.money.purses`.
    await connection.execute(
        insert(ledger_accounts).values(
            id=ledger_account, owner_id=account_id, kind=kind, shard=0, created_at=now
        )
    )
    await connection.execute(insert(balances).values(ledger_account_id=ledger_account))
    return ledger_account


async def by_id(connection: AsyncConnection, account_id: UUID) -> Account:
    """Return the account. Raises NotFound."""
    found = await _one(connection, accounts.c.id == account_id)
    if found is None:
        raise NotFound("There is no such account.")
    return found


async def by_name(connection: AsyncConnection, name: str) -> Account:
    """Return the account. Raises NotFound."""
    found = await _one(connection, accounts.c.name == name)
    if found is None:
        raise NotFound(f"There is no account '{name}'.")
    return found


async def list_accounts(
    connection: AsyncConnection,
    *,
    role: Role | None = None,
    after: UUID | None = None,
    limit: int = 100,
) -> list[Account]:
    """Return up to `limit` (at most 1,000) accounts, oldest first, from after the id `after`."""
    query = _accounts().order_by(accounts.c.id).limit(min(limit, _LIST_MAX))
    if role is not None:
        query = query.where(accounts.c.role == role.value)
    if after is not None:
        query = query.where(accounts.c.id > after)
    return [_account(row) for row in await connection.execute(query)]


async def ids_by_name(connection: AsyncConnection, names: Iterable[str]) -> dict[str, UUID]:
    """Return the ids of those of `names` that are accounts."""
    query = select(accounts.c.name, accounts.c.id).where(accounts.c.name.in_(sorted(set(names))))
    return {row.name: row.id for row in await connection.execute(query)}


async def names_by_id(connection: AsyncConnection, ids: Iterable[UUID]) -> dict[UUID, str]:
    """Return the names of those of `ids` that are accounts."""
    query = select(accounts.c.id, accounts.c.name).where(accounts.c.id.in_(sorted(set(ids))))
    return {row.id: row.name for row in await connection.execute(query)}


async def close(connection: AsyncConnection, account_id: UUID, now: datetime) -> None:
    """Close an account: its keys open nothing any more, its record stays. Raises NotFound."""
    closed = await connection.execute(
        update(accounts)
        .where(accounts.c.id == account_id, accounts.c.closed_at.is_(None))
        .values(closed_at=now)
    )
    if closed.rowcount == 0:
        raise NotFound("There is no such open account.")
    await changes.announce(connection, changes.KEYS)


def _accounts() -> Select[Any]:
    owned = and_(
        ledger_accounts.c.owner_id == accounts.c.id,
        ledger_accounts.c.kind.in_(LEDGER_KINDS.values()),
        ledger_accounts.c.shard == 0,
    )
    return select(*accounts.c, ledger_accounts.c.id.label("ledger_account")).select_from(
        accounts.outerjoin(ledger_accounts, owned)
    )


async def _one(connection: AsyncConnection, condition: ColumnElement[bool]) -> Account | None:
    row = (await connection.execute(_accounts().where(condition))).one_or_none()
    return None if row is None else _account(row)


def _account(row: Row[Any]) -> Account:
    return Account(
        id=row.id,
        role=Role(row.role),
        name=row.name,
        ledger_account=row.ledger_account,
        created_at=row.created_at,
        closed_at=row.closed_at,
    )

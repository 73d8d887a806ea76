"""Keys `bk_<id>_<secret>`: shown once, kept as SHA-256, loaded whole into memory."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, Select, and_, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.errors import NotFound
from broker.store import changes
from broker.store.accounts import LEDGER_KINDS, Role
from broker.store.tables import accounts, keys, ledger_accounts

PREFIX = "bk"
_ID_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # no l, o, 0, 1, which people confuse
_ID_CHARACTERS = 12
_SECRET_ALPHABET = string.ascii_letters + string.digits  # no underscore, which parts the key
_SECRET_CHARACTERS = 43  # 43 x log2(62) = 256 bits

ContentKept = Literal["none", "replay", "full"]


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What a key may do: at most `calls_max` calls at once, until `expires_at`."""

    label: str = ""
    calls_max: int | None = None
    content_kept: ContentKept = "none"
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key. `text` exists here and with its owner, nowhere else."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key as its owner may look at it."""

    id: str
    account_id: UUID
    terms: KeyTerms
    created_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredKey:
    """All that authenticating a caller needs; `funds` is None for all but consumers."""

    id: str
    account_id: UUID
    account_name: str
    role: Role
    secret_sha256: bytes
    funds: UUID | None
    calls_max: int | None
    content_kept: ContentKept
    expires_at: datetime | None

    def opens(self, secret: str, now: datetime) -> bool:
        """True when `secret` is this key's and the key has not expired; in constant time."""
        same = hmac.compare_digest(sha256_of(secret), self.secret_sha256)
        return same and (self.expires_at is None or now < self.expires_at)


def sha256_of(secret: str) -> bytes:
    """Return what is stored of a secret: of 256 random bits, it needs no slow hash."""
    return hashlib.sha256(secret.encode()).digest()


def parse(text: str) -> tuple[str, str] | None:
    """Return (id, secret) of a key's text, None when it has not the form of a key."""
    parts = text.split("_")
    if len(parts) != 3 or parts[0] != PREFIX or not parts[1] or not parts[2]:
        return None
    return parts[1], parts[2]


async def issue(
    connection: AsyncConnection, account_id: UUID, terms: KeyTerms, now: datetime
) -> IssuedKey:
    """Make a key for an open account. Raises NotFound."""
    owner = await connection.execute(
        select(accounts.c.id).where(accounts.c.id == account_id, accounts.c.closed_at.is_(None))
    )
    if owner.scalar_one_or_none() is None:
        raise NotFound("There is no such open account.")
    key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_CHARACTERS))
    secret = "".join(secrets.choice(_SECRET_ALPHABET) for _ in range(_SECRET_CHARACTERS))
    await connection.execute(
        insert(keys).values(
            id=key_id,
            account_id=account_id,
            secret_sha256=sha256_of(secret),
            label=terms.label,
            calls_max=terms.calls_max,
            content_kept=terms.content_kept,
            created_at=now,
            expires_at=terms.expires_at,
        )
    )
    await changes.announce(connection, changes.KEYS)
    return IssuedKey(key_id, f"{PREFIX}_{key_id}_{secret}")


async def revoke(
    connection: AsyncConnection, key_id: str, now: datetime, *, owner: UUID | None = None
) -> None:
    """Revoke a key, again without effect. With `owner`, another account's key is NotFound."""
    condition = keys.c.id == key_id
    if owner is not None:
        condition = and_(condition, keys.c.account_id == owner)
    row = (await connection.execute(select(keys.c.revoked_at).where(condition))).one_or_none()
    if row is None:
        raise NotFound("There is no such key.")
    if row.revoked_at is None:
        await connection.execute(update(keys).where(condition).values(revoked_at=now))
        await changes.announce(connection, changes.KEYS)


async def list_keys(connection: AsyncConnection, account_id: UUID) -> list[ListedKey]:
    """Return all keys of an account, revoked ones too, newest first."""
    query = select(keys).where(keys.c.account_id == account_id).order_by(keys.c.created_at.desc())
    return [
        ListedKey(
            id=row.id,
            account_id=row.account_id,
            terms=KeyTerms(row.label, row.calls_max, row.content_kept, row.expires_at),
            created_at=row.created_at,
            revoked_at=row.revoked_at,
        )
        for row in await connection.execute(query)
    ]


async def load_all(connection: AsyncConnection, now: datetime) -> dict[str, StoredKey]:
    """Return every key that opens something at `now`, by id; whoever reads it checks expiry."""
    stored = map(_stored_key, await connection.execute(_stored(now)))
    return {key.id: key for key in stored}


async def find(connection: AsyncConnection, key_id: str, now: datetime) -> StoredKey | None:
    """Return the key that opens something at `now`, or None."""
    row = (await connection.execute(_stored(now).where(keys.c.id == key_id))).one_or_none()
    return _stored_key(row) if row is not None else None


def _stored(now: datetime) -> Select[Any]:
    funds = and_(
        ledger_accounts.c.owner_id == accounts.c.id,
        ledger_accounts.c.kind == LEDGER_KINDS[Role.CONSUMER],
        ledger_accounts.c.shard == 0,
    )
    return (
        select(*keys.c, accounts.c.name, accounts.c.role, ledger_accounts.c.id.label("funds"))
        .select_from(keys.join(accounts, accounts.c.id == keys.c.account_id))
        .outerjoin(ledger_accounts, funds)
        .where(keys.c.revoked_at.is_(None), accounts.c.closed_at.is_(None))
        .where(or_(keys.c.expires_at.is_(None), keys.c.expires_at > now))
    )


def _stored_key(row: Row[Any]) -> StoredKey:
    return StoredKey(
        id=row.id,
        account_id=row.account_id,
        account_name=row.name,
        role=Role(row.role),
        secret_sha256=row.secret_sha256,
        funds=row.funds,
        calls_max=row.calls_max,
        content_kept=row.content_kept,
        expires_at=row.expires_at,
    )

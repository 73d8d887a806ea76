"""Keys `bk_<id>_<secret>`: shown once, kept as SHA-256, loaded whole into memory."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, and_, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.key_terms import (
    ALL_SCOPES,
    NO_ALLOWANCE,
    NO_RATES,
    Allowance,
    ContentKept,
    KeyTerms,
    Rates,
    Scope,
)
from broker.errors import Conflict, NotFound
from broker.store import changes
from broker.store.access.accounts import LEDGER_KINDS, Role
from broker.store.access.key_text import new_id, new_secret, sha256_of, written
from broker.store.tables import accounts, keys, ledger_accounts


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key. `text` exists here and with its owner, nowhere else."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key as its owner may look at it; the secret before the last rotation opens until a time."""

    id: str
    account_id: UUID
    terms: KeyTerms
    created_at: datetime
    revoked_at: datetime | None
    former_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredKey:
    """All that authenticating a caller needs; `funds` is None for all but consumers."""

    id: str
    account_id: UUID
    account_name: str
    role: Role
    funds: UUID | None
    terms: KeyTerms
    secret_sha256: bytes
    former_sha256: bytes | None = None
    former_until: datetime | None = None

    @property
    def content_kept(self) -> ContentKept:
        """What of its calls the owner has asked to be kept."""
        return self.terms.content_kept

    def opens(self, secret: str, now: datetime) -> bool:
        """True when `secret` is this key's, or was until a rotation whose overlap has not ended,
        and the key has not expired; in constant time."""
        given = sha256_of(secret)
        until = self.terms.expires_at
        if not hmac.compare_digest(given, self.secret_sha256):
            if self.former_sha256 is None or not hmac.compare_digest(given, self.former_sha256):
                return False
            until = self.lapses_at(secret)
        return until is None or now < until

    def lapses_at(self, secret: str) -> datetime | None:
        """Return until when a secret that opens this key does so; None is for ever."""
        expires_at = self.terms.expires_at
        if self.former_until is None or sha256_of(secret) == self.secret_sha256:
            return expires_at
        return self.former_until if expires_at is None else min(self.former_until, expires_at)


async def issue(
    connection: AsyncConnection, account_id: UUID, terms: KeyTerms, now: datetime
) -> IssuedKey:
    """Make a key for an open account. Raises NotFound."""
    owner = await connection.execute(
        select(accounts.c.id).where(accounts.c.id == account_id, accounts.c.closed_at.is_(None))
    )
    if owner.scalar_one_or_none() is None:
        raise NotFound("There is no such open account.")
    key_id, secret = new_id(), new_secret()
    key = IssuedKey(key_id, written(key_id, secret))
    made = {"id": key_id, "account_id": account_id, "created_at": now}
    await connection.execute(
        insert(keys).values(**made, secret_sha256=sha256_of(secret), **_columns(terms))
    )
    await changes.announce(connection, changes.KEYS)
    return key


async def rotate(
    connection: AsyncConnection, key_id: str, former_until: datetime, now: datetime
) -> IssuedKey:
    """Give a key a new secret; its present one opens until `former_until`, which may be `now`.

    Raises Conflict for a revoked key, and, lest a secret that was promised some time lose it, while
    the overlap of a former rotation lasts; with `former_until` of `now` all former ones end.
    """
    secret = new_secret()
    row = (
        await connection.execute(
            select(keys.c.revoked_at, keys.c.expires_at, keys.c.former_until)
            .where(keys.c.id == key_id)
            .with_for_update()
        )
    ).one_or_none()
    if row is None:
        raise NotFound("There is no such key.")
    if row.revoked_at is not None:
        raise Conflict("The key is revoked.", code="key_revoked")
    if row.expires_at is not None and row.expires_at <= now:
        raise Conflict("The key has expired.", code="key_expired")
    if row.former_until is not None and now < row.former_until and now < former_until:
        raise Conflict(
            f"The key was rotated before, and its former secret works until "
            f"{row.former_until:%Y-%m-%d %H:%M:%S} UTC. An overlap_s of 0 ends it now.",
            code="rotation_under_way",
        )
    await connection.execute(
        update(keys)
        .where(keys.c.id == key_id)
        .values(
            former_sha256=keys.c.secret_sha256,
            former_until=former_until,
            secret_sha256=sha256_of(secret),
        )
    )
    await changes.announce(connection, changes.KEYS)
    return IssuedKey(key_id, written(key_id, secret))


async def set_terms(connection: AsyncConnection, key_id: str, terms: KeyTerms) -> None:
    """Replace what a key may do, in every process within a second of the commit."""
    await connection.execute(update(keys).where(keys.c.id == key_id).values(**_columns(terms)))
    await changes.announce(connection, changes.KEYS)


async def read(connection: AsyncConnection, key_id: str, *, owner: UUID | None = None) -> ListedKey:
    """Return a key, locked. Raises NotFound; with `owner`, for another account's key as well."""
    query = select(keys).where(keys.c.id == key_id).with_for_update()
    if owner is not None:
        query = query.where(keys.c.account_id == owner)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("There is no such key.")
    return _listed_key(row)


async def revoke(connection: AsyncConnection, key_id: str, now: datetime) -> None:
    """Revoke a key, again without effect. Raises NotFound."""
    condition = keys.c.id == key_id
    row = (await connection.execute(select(keys.c.revoked_at).where(condition))).one_or_none()
    if row is None:
        raise NotFound("There is no such key.")
    if row.revoked_at is None:
        await connection.execute(update(keys).where(condition).values(revoked_at=now))
        await changes.announce(connection, changes.KEYS)


async def list_keys(connection: AsyncConnection, account_id: UUID) -> list[ListedKey]:
    """Return all keys of an account, revoked ones too, newest first."""
    query = select(keys).where(keys.c.account_id == account_id).order_by(keys.c.created_at.desc())
    return [_listed_key(row) for row in await connection.execute(query)]


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
        funds=row.funds,
        terms=_terms(row),
        secret_sha256=row.secret_sha256,
        former_sha256=row.former_sha256,
        former_until=row.former_until,
    )


def _listed_key(row: Row[Any]) -> ListedKey:
    terms = _terms(row)
    return ListedKey(
        row.id, row.account_id, terms, row.created_at, row.revoked_at, row.former_until
    )


def _terms(row: Row[Any]) -> KeyTerms:
    rates = Rates(row.requests_per_minute, row.tokens_per_minute)
    allowance = Allowance(*map(_set, (row.models, row.providers, row.domains)))
    return KeyTerms(
        label=row.label,
        calls_max=row.calls_max,
        content_kept=row.content_kept,
        expires_at=row.expires_at,
        scopes=ALL_SCOPES if row.scopes is None else frozenset(map(Scope, row.scopes)),
        rates=None if rates == NO_RATES else rates,
        allowance=None if allowance == NO_ALLOWANCE else allowance,
        explore=row.explore,
    )


def _columns(terms: KeyTerms) -> dict[str, Any]:
    rates, allowance = terms.rates or NO_RATES, terms.allowance or NO_ALLOWANCE
    return {
        "label": terms.label,
        "calls_max": terms.calls_max,
        "content_kept": terms.content_kept,
        "explore": terms.explore,
        "expires_at": terms.expires_at,
        "scopes": None if terms.scopes == ALL_SCOPES else _list(terms.scopes),
        "requests_per_minute": rates.requests_per_minute,
        "tokens_per_minute": rates.tokens_per_minute,
        "models": _list(allowance.models),
        "providers": _list(allowance.providers),
        "domains": _list(allowance.domains),
    }


def _list(words: frozenset[Any] | None) -> list[str] | None:
    return None if words is None else sorted(map(str, words))


def _set(words: list[str] | None) -> frozenset[str] | None:
    return None if words is None else frozenset(words)

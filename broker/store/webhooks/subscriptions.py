"""Webhooks: who wants to be told of what, where, and under which secrets."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.errors import NotFound
from broker.store.access.accounts import Role
from broker.store.sealing import Sealer
from broker.store.tables import accounts, table

webhooks = table(
    "webhooks",
    """
    id uuid, account_id uuid, url text, kinds text[], secret_sealed bytea, former_sealed bytea,
    former_until timestamptz, status text, created_at timestamptz, told_from timestamptz,
    failures integer, failing_since timestamptz, resume_at timestamptz, leased_until timestamptz,
    pinged_at timestamptz
    """,
)

Status = Literal["enabled", "disabled"]


@dataclass(frozen=True, slots=True)
class Webhook:
    """A subscription of an account; after `failures` in a row it is spared until `resume_at`."""

    id: UUID
    account_id: UUID
    role: Role
    url: str
    kinds: tuple[str, ...]
    status: Status
    created_at: datetime
    failures: int
    failing_since: datetime | None
    resume_at: datetime
    leased_until: datetime
    pinged_at: datetime | None
    secret_sealed: bytes
    former_sealed: bytes | None
    former_until: datetime | None

    def secrets(self, sealer: Sealer, now: datetime) -> tuple[str, ...]:
        """Return the secrets that are valid, the newest first. Raises SecretUnreadable."""
        sealed = [self.secret_sealed]
        if self.former_sealed is not None and self.former_until and now < self.former_until:
            sealed.append(self.former_sealed)
        place = _place(self.id)
        return tuple(sealer.open(each, place).decode() for each in sealed)


@dataclass(frozen=True, slots=True)
class NewWebhook:
    """What is needed to make one."""

    id: UUID
    account_id: UUID
    url: str
    kinds: tuple[str, ...]
    secret: str


async def add(
    connection: AsyncConnection, made: NewWebhook, sealer: Sealer, now: datetime
) -> Webhook:
    """Write a webhook down; it is told what happens from now on."""
    await connection.execute(
        insert(webhooks).values(
            id=made.id,
            account_id=made.account_id,
            url=made.url,
            kinds=list(made.kinds),
            secret_sealed=sealer.seal(made.secret.encode(), _place(made.id)),
            status="enabled",
            created_at=now,
            told_from=now,
            resume_at=now,
        )
    )
    return await find(connection, made.id, made.account_id)


async def count(connection: AsyncConnection, account_id: UUID) -> int:
    """Return how many webhooks an account has, which is locked against making more meanwhile."""
    await connection.execute(
        select(accounts.c.id).where(accounts.c.id == account_id).with_for_update(key_share=True)
    )
    counted = select(func.count()).where(webhooks.c.account_id == account_id)
    return int(await connection.scalar(counted) or 0)


async def find(
    connection: AsyncConnection, webhook_id: UUID, owner: UUID, *, lock: bool = False
) -> Webhook:
    """Return a webhook of `owner`; another's is NotFound."""
    query = _webhooks().where(webhooks.c.id == webhook_id, webhooks.c.account_id == owner)
    if lock:
        query = query.with_for_update(of=webhooks)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("There is no such webhook.")
    return webhook_of(row)


async def list_webhooks(connection: AsyncConnection, owner: UUID) -> list[Webhook]:
    """Return an account's webhooks, oldest first."""
    query = _webhooks().where(webhooks.c.account_id == owner).order_by(webhooks.c.id)
    return [webhook_of(row) for row in await connection.execute(query)]


async def remove(connection: AsyncConnection, webhook_id: UUID) -> None:
    """Delete a webhook with all that waits for it."""
    await connection.execute(delete(webhooks).where(webhooks.c.id == webhook_id))


async def remove_of_closed(connection: AsyncConnection) -> int:
    """Delete the webhooks of closed accounts with all that waits for them, which nobody can be sent
    or look up any more; return how many."""
    closed = select(accounts.c.id).where(accounts.c.closed_at.is_not(None))
    done = await connection.execute(delete(webhooks).where(webhooks.c.account_id.in_(closed)))
    return done.rowcount


async def rotate(
    connection: AsyncConnection, webhook: Webhook, secret: str, until: datetime, sealer: Sealer
) -> None:
    """Give a webhook a new secret; the present one is valid beside it until `until`."""
    await _set(
        connection,
        webhook.id,
        secret_sealed=sealer.seal(secret.encode(), _place(webhook.id)),
        former_sealed=webhook.secret_sealed,
        former_until=until,
    )


async def enable(connection: AsyncConnection, webhook_id: UUID, now: datetime) -> None:
    """Let a webhook be told again of what happens from now on."""
    fresh = {"failures": 0, "failing_since": None, "resume_at": now, "told_from": now}
    await _set(connection, webhook_id, status="enabled", **fresh)


async def disable(connection: AsyncConnection, webhook_id: UUID) -> None:
    """Let a webhook be told nothing more."""
    await _set(connection, webhook_id, status="disabled")


async def set_pinged(connection: AsyncConnection, webhook_id: UUID, now: datetime) -> None:
    """Remember when a webhook was last tried out."""
    await _set(connection, webhook_id, pinged_at=now)


async def set_health(
    connection: AsyncConnection,
    webhook_id: UUID,
    failures: int,
    failing_since: datetime | None,
    resume_at: datetime,
) -> None:
    """Remember how a webhook does; nothing is sent to it before `resume_at`."""
    health = {"failures": failures, "failing_since": failing_since, "resume_at": resume_at}
    await _set(connection, webhook_id, **health)


async def lease(
    connection: AsyncConnection, ids: list[UUID], until: datetime
) -> dict[UUID, Webhook]:
    """Lease locked webhooks until `until`; return them by id."""
    await connection.execute(
        update(webhooks).where(webhooks.c.id.in_(ids)).values(leased_until=until)
    )
    rows = await connection.execute(_webhooks().where(webhooks.c.id.in_(ids)))
    return {row.id: webhook_of(row) for row in rows}


async def release(connection: AsyncConnection, webhook: Webhook, now: datetime) -> None:
    """Give a lease back, if it is still that one."""
    await connection.execute(
        update(webhooks)
        .where(webhooks.c.id == webhook.id, webhooks.c.leased_until == webhook.leased_until)
        .values(leased_until=now)
    )


async def _set(connection: AsyncConnection, webhook_id: UUID, **values: Any) -> None:
    await connection.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(**values))


def _webhooks() -> Any:
    return select(webhooks, accounts.c.role).join(accounts, accounts.c.id == webhooks.c.account_id)


def webhook_of(row: Row[Any]) -> Webhook:
    """Return the value of a row of webhooks with its owner's role."""
    names = (
        *("id", "account_id", "url", "status", "created_at", "failures", "failing_since"),
        *("resume_at", "leased_until", "pinged_at", "secret_sealed", "former_sealed"),
        "former_until",
    )
    fields = {name: getattr(row, name) for name in names}
    return Webhook(**fields, role=Role(row.role), kinds=tuple(row.kinds))


def _place(webhook_id: UUID) -> str:
    return f"webhooks/{webhook_id}/secret"

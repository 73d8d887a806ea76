"""Shows payouts to whom they concern: a provider its own, operators all."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.errors import NotFound, RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.store.access import accounts as account_store
from broker.store.access.accounts import Role
from broker.store.money import payout_batches, payouts
from broker.store.money.payout_batches import Batch
from broker.store.money.payouts import Item, Payout, Wanted


async def concerned(engine: AsyncEngine, caller: Caller, name: str | None) -> UUID:
    """Return which provider is asked about: the caller, or by its name an operator's choice.

    Raises RequestMalformed for an operator without a name, NotFound for another's name.
    """
    if caller.role is Role.PROVIDER:
        if name not in (None, caller.name):
            raise NotFound("There is no such provider.")
        return caller.account_id
    if name is None:
        raise RequestMalformed("Say which provider: ?provider=NAME.", code="provider_missing")
    async with engine.connect() as connection:
        return await provider_named(connection, name)


async def provider_named(connection: AsyncConnection, name: str) -> UUID:
    """Return a provider's id. Raises NotFound, also for an account of another role."""
    account = await account_store.by_name(connection, name)
    if account.role is not Role.PROVIDER:
        raise NotFound("There is no such provider.")
    return account.id


async def list_payouts(engine: AsyncEngine, caller: Caller, wanted: Wanted) -> list[Payout]:
    """Return payouts, newest first; a provider's own whatever it asks for."""
    if caller.role is not Role.OPERATOR:
        wanted = replace(wanted, provider_id=caller.account_id)
    async with engine.connect() as connection:
        return await payouts.list_payouts(connection, wanted)


async def read_payout(
    engine: AsyncEngine, caller: Caller, payout_id: UUID
) -> tuple[Payout, list[Item]]:
    """Return a payout and what it is the sum of. Raises NotFound, also for another's."""
    async with engine.connect() as connection:
        payout = await payouts.find(connection, payout_id)
        if caller.role is not Role.OPERATOR and payout.provider_id != caller.account_id:
            raise NotFound("There is no such payout.")
        return payout, await payouts.items_of(connection, payout_id)


async def list_batches(engine: AsyncEngine, *, before: UUID | None, limit: int) -> list[Batch]:
    """Return batches, newest first, before the id `before`."""
    async with engine.connect() as connection:
        return await payout_batches.list_batches(connection, before=before, limit=limit)

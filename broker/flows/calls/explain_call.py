"""Tells what a call did to the books: to who paid all of it, to providers their own lines."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.money.postings import (
    Naming,
    Postings,
    full_name,
    name_for_consumer,
    name_for_provider,
    part_of,
)
from broker.errors import NotFound
from broker.flows.access.authenticate import Caller
from broker.store.access.accounts import Role
from broker.store.books import postings as posting_store


@dataclass(frozen=True, slots=True)
class Explained:
    """A call's postings, and the names by which its reader knows the accounts."""

    postings: Postings
    name: Naming


async def explain(engine: AsyncEngine, caller: Caller, call_id: UUID) -> Explained:
    """Return the postings of a call, also of one that was refused or is under way.

    Raises NotFound for a call that is not, is another's, or earned the provider who asks nothing.
    """
    async with engine.connect() as connection:
        found = await posting_store.find_postings(connection, call_id)
        payer = await posting_store.payer_of(connection, call_id)
    if found is not None:
        own = caller.account_id
        if caller.role is Role.OPERATOR:
            return Explained(found, full_name)
        if caller.role is Role.CONSUMER and payer == own:
            return Explained(found, name_for_consumer(own))
        if caller.role is Role.PROVIDER and any(each.concerns(own) for each in found.entries):
            return Explained(part_of(found, own), name_for_provider(own))
    raise NotFound("There is no such call.")

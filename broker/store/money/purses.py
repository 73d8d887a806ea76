"""A provider's purses: pending earnings, what is available, what is on its way out, what it owes.

settlement ─► earnings ─ maturity ─► available ─ payout ─► transit ─ sent ─► world
                                         └ recovery ─► receivable (below zero: owed)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.errors import NotFound
from broker.store.money import recourse
from broker.store.tables import balances, table

purses = table(
    "provider_purses",
    "provider_id uuid, earnings_id uuid, available_id uuid, transit_id uuid, receivable_id uuid",
)


@dataclass(frozen=True, slots=True)
class Purses:
    """The ledger accounts of one provider."""

    provider_id: UUID
    earnings: UUID
    available: UUID
    transit: UUID
    receivable: UUID

    def all(self) -> tuple[UUID, UUID, UUID, UUID]:
        """Return every purse, in the order in which money goes through them."""
        return self.earnings, self.available, self.transit, self.receivable


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in the purses, nano-dollars; `owed_nanos` is at least zero."""

    pending_nanos: int
    available_nanos: int
    transit_nanos: int
    owed_nanos: int


async def purses_of(
    connection: AsyncConnection, provider_ids: Iterable[UUID]
) -> dict[UUID, Purses]:
    """Return the purses of those of these accounts that are providers."""
    query = select(purses).where(purses.c.provider_id.in_(sorted(set(provider_ids))))
    return {row.provider_id: Purses(*row) for row in await connection.execute(query)}


async def purse_of(connection: AsyncConnection, provider_id: UUID) -> Purses:
    """Return a provider's purses. Raises NotFound for an account that is none."""
    found = (await purses_of(connection, [provider_id])).get(provider_id)
    if found is None:
        raise NotFound("There is no such provider.")
    return found


async def lock(connection: AsyncConnection, wanted: Iterable[Purses]) -> dict[UUID, Contents]:
    """Lock all these purses in the order of their ids; return the contents by provider."""
    wanted = list(wanted)
    amounts = await recourse.lock(connection, [each for one in wanted for each in one.all()])
    return {each.provider_id: _contents(each, amounts) for each in wanted}


async def look_into(connection: AsyncConnection, wanted: Purses) -> Contents:
    """Return the contents as they are now, without a lock."""
    query = select(balances.c.ledger_account_id, balances.c.posted_nanos).where(
        balances.c.ledger_account_id.in_(wanted.all())
    )
    rows = await connection.execute(query)
    return _contents(wanted, {row.ledger_account_id: row.posted_nanos for row in rows})


def _contents(wanted: Purses, amounts: dict[UUID, int]) -> Contents:
    pending, available, transit, receivable = (amounts[each] for each in wanted.all())
    return Contents(pending, available, transit, -receivable)

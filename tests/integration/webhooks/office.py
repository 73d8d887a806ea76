"""What the tests of webhooks do all the time: open accounts, subscribe, tell, look, read."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.webhooks import Patience
from broker.flows.access.authenticate import Caller
from broker.flows.webhooks.deliver_webhooks import Courier, Means
from broker.flows.webhooks.subscribe import Subscribed, subscribe
from broker.store.access import accounts
from broker.store.access.accounts import Account, Role
from broker.store.sealing import Sealer
from broker.store.webhooks import events
from broker.store.webhooks.events import Event
from broker.upstream.addresses import AddressPolicy

BEGINNING = datetime.now(UTC)
LOOPBACK = AddressPolicy((ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")))
SEALER = Sealer("ab" * 32)
IMPATIENT_S = 1.0


@dataclass
class Office:
    """A database, a clock that stands until it is moved, and a courier."""

    engine: AsyncEngine
    now: datetime = BEGINNING
    means: Means = field(init=False)
    courier: Courier = field(init=False)

    def __post_init__(self) -> None:
        self.means = Means(
            engine=self.engine,
            sealer=SEALER,
            addresses=LOOPBACK,
            clock=lambda: self.now,
            chance=Random(1).random,
            patience=Patience(),
            total_s=IMPATIENT_S,
        )
        self.courier = Courier(self.means)

    def another_courier(self, **changes: Any) -> Courier:
        """A courier as another worker has it."""
        return Courier(replace(self.means, **changes))

    def later(self, **by: float) -> None:
        """Move the clock."""
        self.now += timedelta(**by)

    async def account(self, role: Role, name: str) -> Account:
        async with self.engine.begin() as connection:
            return await accounts.create(connection, role, name, self.now)

    async def subscribe(self, owner: Account, url: str, *kinds: str) -> Subscribed:
        async with self.engine.begin() as connection:
            wanted = (url, kinds or ("*",))
            return await subscribe(connection, caller(owner), wanted, SEALER, self.now)

    async def tell(self, owner: Account | None, kind: str = "refund.posted", at: str = "1") -> str:
        """Tell an event about the object `things/<at>`; return its id."""
        async with self.engine.begin() as connection:
            return await tell(connection, owner, kind, at, self.now)

    async def round(self, *couriers: Courier) -> None:
        """Let couriers look, and wait until all is sent that was due."""
        for courier in couriers or (self.courier,):
            await courier.look()
        for courier in couriers or (self.courier,):
            await courier.idle()

    async def states(self, webhook: UUID) -> dict[str, str]:
        """The state of each delivery by its event's id."""
        rows = await self.rows(
            "SELECT event_id, state FROM webhook_deliveries WHERE webhook_id = :id", id=webhook
        )
        return {str(row.event_id): row.state for row in rows}

    async def rows(self, query: str, **values: Any) -> Sequence[Any]:
        async with self.engine.connect() as connection:
            return (await connection.execute(text(query), values)).all()

    async def run(self, statement: str, **values: Any) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(text(statement), values)


def caller(account: Account) -> Caller:
    """The account as one that calls."""
    return Caller(account.id, account.name, account.role)


async def tell(
    connection: AsyncConnection, owner: Account | None, kind: str, at: str, now: datetime
) -> str:
    """Tell an event in a transaction of the test's."""
    owner_id = None if owner is None else owner.id
    event = Event(kind, f"things/{at}", owner_id, {"amount_usd": "1.00"})
    return str(await events.tell(connection, event, now))

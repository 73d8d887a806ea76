"""Closes an account: its keys open nothing more, what it has on the market goes, its books stay."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.catalog import ListingStatus
from broker.errors import Conflict, NotFound
from broker.flows.access.authenticate import Caller
from broker.store.access import accounts, audit
from broker.store.market import catalog, deployments

KEEPER: Final = "operator"
"""The account that a market cannot be without: links to the console are for it."""


async def close_account(
    engine: AsyncEngine, caller: Caller, name: str, reason: str, now: datetime
) -> None:
    """Close an account for good, everywhere within a second; calls under way are finished.

    Its balance stays, and an operator can still read and correct it. Raises NotFound where there
    is no such open account, Conflict for the caller's own and for the one of the console's links.
    """
    async with engine.begin() as connection:
        account = await accounts.by_name(connection, name)
        if account.closed_at is not None:
            raise NotFound("There is no such open account.")
        if name == KEEPER or account.id == caller.account_id:
            raise Conflict(f"'{name}' stays open: somebody must open the console.")
        # First, for it locks the account: nothing is registered behind what is withdrawn.
        await accounts.close(connection, account.id, now)
        await _withdraw_all(connection, account, now)
        deed = audit.Deed(caller.name, "close_account", f"accounts/{name}", {"reason": reason})
        await audit.record(connection, deed, now)


async def _withdraw_all(
    connection: AsyncConnection, account: accounts.Account, now: datetime
) -> None:
    for each in await deployments.list_deployments(connection, provider_id=account.id):
        if each.deployment.status is not ListingStatus.WITHDRAWN:
            await catalog.withdraw(connection, account.id, each.deployment.id, now)

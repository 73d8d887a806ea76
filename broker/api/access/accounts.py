"""Accounts and their top-ups, for operators."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath, FromQuery, JSONBody
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.api.callers import OPERATORS
from broker.api.money.balance import BalanceShown, balance_shown
from broker.api.once import GivenOnce
from broker.api.parts import GivenCaller, GivenEngine, GivenTime
from broker.api.wire import After, Body, Limit, Reply
from broker.flows.access.close_account import close_account
from broker.flows.access.open_account import list_accounts, open_in
from broker.flows.money.topup import Order, move
from broker.store.access.accounts import Account, Role
from broker.store.books.transfers import TransferKind
from pricing.money import parse_signed_usd_nanos, parse_usd_nanos


class AccountWanted(Body):
    """An account to open."""

    name: str
    role: Role


class AccountShown(Reply):
    """An account."""

    id: UUID
    name: str
    role: Role
    created_at: datetime
    closed_at: datetime | None


class AccountList(Reply):
    """Accounts, oldest first; `cursor` asks for the next page."""

    accounts: list[AccountShown]
    cursor: UUID | None


class TopupWanted(Body):
    """Money to put on an account's balance; `reason` stands in its statement."""

    amount_usd: str
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


class AdjustmentWanted(Body):
    """A correction of an account's balance: below zero, with a `-` before it, it takes away."""

    amount_usd: str
    reason: Annotated[str, msgspec.Meta(max_length=500)]


class ClosingWanted(Body):
    """Why an account is closed; kept in the audit log."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class AccountController(Controller):
    """`/api/accounts`"""

    path = "/accounts"
    guards = (OPERATORS,)
    tags = ("Accounts",)

    @post(summary="Open an account")
    async def open(
        self,
        data: JSONBody[AccountWanted],
        caller: GivenCaller,
        now: GivenTime,
        once: GivenOnce,
    ) -> Response[AccountShown]:
        async def act(connection: AsyncConnection) -> AccountShown:
            return _shown(await open_in(connection, data.name, data.role, caller.name, now))

        return await once(act)

    @get(summary="List accounts")
    async def list(
        self,
        engine: GivenEngine,
        role: FromQuery[Role | None] = None,
        limit: Limit = 100,
        cursor: After = None,
    ) -> AccountList:
        accounts = await list_accounts(engine, role=role, after=cursor, limit=limit)
        full = len(accounts) == limit
        return AccountList(
            accounts=[_shown(each) for each in accounts], cursor=accounts[-1].id if full else None
        )

    @post("/{name:str}/topups", summary="Top up a consumer's funds")
    async def top_up(
        self,
        name: FromPath[str],
        data: JSONBody[TopupWanted],
        caller: GivenCaller,
        now: GivenTime,
        once: GivenOnce,
    ) -> Response[BalanceShown]:
        order = Order(name, parse_usd_nanos(data.amount_usd), data.reason)

        async def act(connection: AsyncConnection) -> BalanceShown:
            return balance_shown(await move(connection, caller, order, now))

        return await once(act)

    @post("/{name:str}/adjustments", summary="Correct a balance, up or down, with a reason")
    async def adjust(
        self,
        name: FromPath[str],
        data: JSONBody[AdjustmentWanted],
        caller: GivenCaller,
        now: GivenTime,
        once: GivenOnce,
    ) -> Response[BalanceShown]:
        nanos = parse_signed_usd_nanos(data.amount_usd)
        order = Order(name, nanos, data.reason, TransferKind.ADJUSTMENT)

        async def act(connection: AsyncConnection) -> BalanceShown:
            return balance_shown(await move(connection, caller, order, now))

        return await once(act)

    @post("/{name:str}/close", summary="Close an account for good", status_code=204)
    async def close(
        self,
        name: FromPath[str],
        data: JSONBody[ClosingWanted],
        engine: GivenEngine,
        caller: GivenCaller,
        now: GivenTime,
    ) -> None:
        await close_account(engine, caller, name, data.reason, now)


def _shown(account: Account) -> AccountShown:
    return AccountShown(
        id=account.id,
        name=account.name,
        role=account.role,
        created_at=account.created_at,
        closed_at=account.closed_at,
    )

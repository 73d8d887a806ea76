"""Accounts and their top-ups, for operators."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.api.callers import OPERATORS
from broker.api.money import balance_shown
from broker.api.parts import GivenCaller, GivenEngine, GivenParts, GivenTime
from broker.api.wire import After, Body, Limit, Reply
from broker.flows.once import Request, once
from broker.flows.open_account import list_accounts, open_account
from broker.flows.topup import Order, move
from broker.store.accounts import Account, Role
from broker.store.idempotency import Answer
from pricing.money import parse_usd_nanos

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="A request sent again under the same key is done once.",
    ),
]


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
        engine: GivenEngine,
        now: GivenTime,
    ) -> AccountShown:
        account = await open_account(engine, data.name, data.role, author=caller.name, now=now)
        return _shown(account)

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
        parts: GivenParts,
        caller: GivenCaller,
        idempotency_key: IdempotencyKey = None,
    ) -> Response[bytes]:
        amount_nanos = parse_usd_nanos(data.amount_usd)
        now = parts.clock()

        async def act(connection: AsyncConnection) -> Answer:
            order = Order(name, amount_nanos, data.reason)
            balance = await move(connection, caller, order, now)
            return Answer(201, msgspec.json.encode(balance_shown(balance)))

        meaning = msgspec.json.encode(["topup", name, amount_nanos, data.reason])
        request = Request(caller.account_id, idempotency_key, meaning)
        done = await once(parts.engine, request, act, now)
        return Response(
            done.answer.body,
            status_code=done.answer.status,
            media_type="application/json",
            headers={"idempotent-replayed": "true"} if done.replayed else {},
        )


def _shown(account: Account) -> AccountShown:
    return AccountShown(
        id=account.id,
        name=account.name,
        role=account.role,
        created_at=account.created_at,
        closed_at=account.closed_at,
    )

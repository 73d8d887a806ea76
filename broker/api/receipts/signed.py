"""Receipts: providers bring keys and what they signed with them; a call's receipts are shown."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from litestar import Controller, delete, get, post
from litestar.params import FromPath, JSONBody
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.api.callers import CHANGING, PROVIDERS, allow
from broker.api.parts import GivenCaller, GivenEngine, GivenTime
from broker.api.wire import Reply
from broker.core.key_terms import Scope
from broker.flows.access.authenticate import Caller
from broker.flows.receipts.keep_receipt_key import keep_key, retire_key
from broker.flows.receipts.read_receipts import read_practices, read_receipts
from broker.flows.receipts.receive_receipts import receive
from broker.store.access.accounts import Role
from provider_sdk.protocol import ReceiptBatch, ReceiptKeyKept, ReceiptKeyOffer, ReceiptReply

BATCH_BYTES_MAX = 4 << 20
"""Five hundred receipts with long names are some two megabytes."""


class ReceiptShown(Reply):
    """A receipt with all that proves it: `signature` is Ed25519 under `public_key`, both in hex, of
    the line `model-broker receipt 1` and `receipt_json`.
    """

    deployment: str
    attempt: int
    received_at: datetime
    receipt_json: str
    signature: str
    key_id: str
    public_key: str


class ReceiptsOfCall(Reply):
    """A call's receipts, by attempt."""

    receipts: list[ReceiptShown]


class ReceiptsShown(Reply):
    """Whether a deployment signs receipts, since when, and how many cases they have opened."""

    deployment: str
    receipts: str
    since: datetime | None
    cases_open: int


async def receipts_shown(engine: AsyncEngine, provider: Caller) -> list[ReceiptsShown]:
    """Write what holds of each of a provider's deployments, for its statement."""
    async with engine.connect() as connection:
        practices = await read_practices(connection, provider.account_id)
    return [
        ReceiptsShown(
            deployment=each.deployment,
            receipts=each.receipts,
            since=each.since,
            cases_open=each.cases_open,
        )
        for each in practices
    ]


class ReceiptController(Controller):
    """`/api/provider/receipts` and the key of a deployment; safe to send again as they are."""

    path = "/provider"
    guards = (PROVIDERS,)
    opt = {CHANGING: Scope.DEPLOYMENTS}  # noqa: RUF012 - as Litestar declares it
    tags = ("Providers",)

    @post(
        "/receipts",
        summary="Take a batch of signed receipts",
        status_code=200,
        request_max_body_size=BATCH_BYTES_MAX,
    )
    async def take(
        self,
        data: JSONBody[ReceiptBatch],
        engine: GivenEngine,
        caller: GivenCaller,
        now: GivenTime,
    ) -> ReceiptReply:
        return await receive(engine, caller, data, now)

    @post(
        "/deployments/{deployment_id:uuid}/receipt-key",
        summary="Bring the key that a deployment's receipts are signed with",
        status_code=200,
    )
    async def bring(
        self,
        deployment_id: FromPath[UUID],
        data: JSONBody[ReceiptKeyOffer],
        engine: GivenEngine,
        caller: GivenCaller,
        now: GivenTime,
    ) -> ReceiptKeyKept:
        return await keep_key(engine, caller, deployment_id, data, now)

    @delete(
        "/deployments/{deployment_id:uuid}/receipt-key",
        summary="Say that a deployment signs no receipts any more",
    )
    async def retire(
        self,
        deployment_id: FromPath[UUID],
        engine: GivenEngine,
        caller: GivenCaller,
        now: GivenTime,
    ) -> None:
        await retire_key(engine, caller, deployment_id, now)


@get(
    "/calls/{call_id:uuid}/receipts",
    summary="A call's receipts, with all that proves them",
    tags=["Calls"],
    guards=[allow(Role.PROVIDER, Role.OPERATOR)],
)
async def receipts_of_call(
    engine: GivenEngine, caller: GivenCaller, call_id: FromPath[UUID]
) -> ReceiptsOfCall:
    """A provider sees those of its own deployments."""
    shown = [
        ReceiptShown(
            deployment=each.deployment,
            attempt=each.attempt,
            received_at=each.received_at,
            receipt_json=each.receipt_json,
            signature=each.signature.hex(),
            key_id=each.key_id,
            public_key=each.public_key.hex(),
        )
        for each in await read_receipts(engine, caller, call_id)
    ]
    return ReceiptsOfCall(receipts=shown)

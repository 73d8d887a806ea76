"""Disputes: a consumer opens one over a call, its providers answer, an operator decides."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from litestar import Controller, Response, get, post
from litestar.params import FromPath, FromQuery, JSONBody
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.api.callers import CONSUMERS, OPERATORS, PROVIDERS
from broker.api.money.refunds import parse_amount
from broker.api.once import GivenOnce
from broker.api.parts import GivenCaller, GivenEngine, GivenParts, GivenTime
from broker.api.wire import After, Body, Limit, Reply
from broker.flows.access.authenticate import Caller
from broker.flows.money.answer_dispute import accept, contest, decide
from broker.flows.money.dispute import Request, Times, open_dispute, withdraw
from broker.flows.money.read_recourse import list_disputes, read_dispute
from broker.store.access.accounts import Role
from broker.store.money.disputes import Answer, Dispute, Status, Verdict
from pricing.money import format_usd


class RefundRequest(Body):
    """What a consumer asks back, all that is left of the charge where no amount is given."""

    reason: str
    amount_usd: str | None = None


class AnswerGiven(Body):
    """A provider's answer; to contest takes words."""

    answer: Literal["accept", "contest"]
    words: str = ""


class DecisionGiven(Body):
    """An operator's decision; upheld, `amount_usd` goes back, or all that is contested."""

    decision: Literal["uphold", "reject"]
    reason: str
    amount_usd: str | None = None


class PartShown(Reply):
    """What is asked of one provider, and its answer."""

    provider: str
    asked_usd: str
    answer: Answer
    words: str
    answered_at: datetime | None
    refunded_usd: str


class DisputeShown(Reply):
    """A dispute; a provider is told of its own part alone, and not who asks."""

    id: UUID
    call_id: UUID
    account: str | None
    status: Status
    reason: str
    asked_usd: str
    refunded_usd: str
    opened_at: datetime
    answer_by: datetime
    closed_at: datetime | None
    verdict: Verdict | None
    verdict_reason: str
    parts: list[PartShown]


class DisputeList(Reply):
    """Disputes, newest first; `cursor` asks for the page before."""

    disputes: list[DisputeShown]
    cursor: UUID | None


class DisputeController(Controller):
    """`/api/calls/{id}/refund-request` and `/api/disputes`"""

    tags = ("Recourse",)

    @post("/calls/{call_id:uuid}/refund-request", summary="Ask back", guards=[CONSUMERS])
    async def open(
        self,
        call_id: FromPath[UUID],
        data: JSONBody[RefundRequest],
        parts: GivenParts,
        caller: GivenCaller,
        once: GivenOnce,
    ) -> Response[DisputeShown]:
        request = Request(call_id, data.reason, parse_amount(data.amount_usd))
        settings, now = parts.settings.recourse, parts.clock()
        times = Times(
            timedelta(days=settings.dispute_window_days), timedelta(days=settings.answer_days)
        )

        async def act(connection: AsyncConnection) -> DisputeShown:
            dispute = await open_dispute(connection, caller, request, times, now)
            return dispute_shown(dispute, caller)

        return await once(act)

    @get("/disputes", summary="List disputes")
    async def list(
        self,
        engine: GivenEngine,
        caller: GivenCaller,
        status: FromQuery[Status | None] = None,
        limit: Limit = 100,
        cursor: After = None,
    ) -> DisputeList:
        found = await list_disputes(engine, caller, status=status, before=cursor, limit=limit)
        return DisputeList(
            disputes=[dispute_shown(each, caller) for each in found],
            cursor=found[-1].id if len(found) == limit else None,
        )

    @get("/disputes/{dispute_id:uuid}", summary="A dispute")
    async def read(
        self, engine: GivenEngine, caller: GivenCaller, dispute_id: FromPath[UUID]
    ) -> DisputeShown:
        return dispute_shown(await read_dispute(engine, caller, dispute_id), caller)

    @post("/disputes/{dispute_id:uuid}/answer", summary="Answer", guards=[PROVIDERS])
    async def answer(
        self,
        dispute_id: FromPath[UUID],
        data: JSONBody[AnswerGiven],
        caller: GivenCaller,
        now: GivenTime,
        once: GivenOnce,
    ) -> Response[DisputeShown]:
        say = accept if data.answer == "accept" else contest

        async def act(connection: AsyncConnection) -> DisputeShown:
            dispute = await say(connection, caller, dispute_id, data.words, now)
            return dispute_shown(dispute, caller)

        return await once(act, status=200)

    @post("/disputes/{dispute_id:uuid}/decision", summary="Decide", guards=[OPERATORS])
    async def decide(
        self,
        dispute_id: FromPath[UUID],
        data: JSONBody[DecisionGiven],
        caller: GivenCaller,
        now: GivenTime,
        once: GivenOnce,
    ) -> Response[DisputeShown]:
        verdict = Verdict.UPHELD if data.decision == "uphold" else Verdict.REJECTED
        ruling = (verdict, parse_amount(data.amount_usd), data.reason)

        async def act(connection: AsyncConnection) -> DisputeShown:
            return dispute_shown(await decide(connection, caller, dispute_id, ruling, now), caller)

        return await once(act, status=200)

    @post("/disputes/{dispute_id:uuid}/withdrawal", summary="Withdraw", guards=[CONSUMERS])
    async def withdraw(
        self, dispute_id: FromPath[UUID], caller: GivenCaller, now: GivenTime, once: GivenOnce
    ) -> Response[DisputeShown]:
        async def act(connection: AsyncConnection) -> DisputeShown:
            return dispute_shown(await withdraw(connection, caller, dispute_id, now), caller)

        return await once(act, status=200)


def dispute_shown(dispute: Dispute, caller: Caller) -> DisputeShown:
    """Write a dispute as the caller may see it."""
    provider = caller.role is Role.PROVIDER
    parts = [
        each for each in dispute.parts if not provider or each.provider_id == caller.account_id
    ]
    asked = sum(each.asked_nanos for each in parts) if provider else dispute.asked_nanos
    return DisputeShown(
        id=dispute.id,
        call_id=dispute.call_id,
        account=None if provider else dispute.account,
        status=dispute.status,
        reason=dispute.reason,
        asked_usd=format_usd(asked),
        refunded_usd=format_usd(sum(each.refunded_nanos for each in parts)),
        opened_at=dispute.opened_at,
        answer_by=dispute.answer_by,
        closed_at=dispute.closed_at,
        verdict=dispute.verdict,
        verdict_reason=dispute.verdict_words,
        parts=[
            PartShown(
                provider=each.provider,
                asked_usd=format_usd(each.asked_nanos),
                answer=each.answer,
                words=each.words,
                answered_at=each.answered_at,
                refunded_usd=format_usd(each.refunded_nanos),
            )
            for each in parts
        ],
    )

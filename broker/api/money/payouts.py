"""`/api/payouts`: providers say where their money goes and see it go, operators send it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from uuid import UUID

from litestar import Controller, Response, get, post, put
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, JSONBody, QueryParameter
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.api.callers import OPERATORS, PROVIDERS
from broker.api.money.earnings import PAYEES, ProviderName
from broker.api.money.payout_messages import (
    BatchList,
    ExportWanted,
    PayoutDetail,
    PayoutList,
    PayoutShown,
    PayoutWanted,
    TermsShown,
    TermsWanted,
    WordGiven,
    batch_shown,
    payout_detail,
    payout_shown,
    terms_shown,
)
from broker.api.once import GivenOnce, Once
from broker.api.parts import GivenCaller, GivenEngine, GivenParts, GivenTime
from broker.api.wire import After, Limit
from broker.flows.access.authenticate import Caller
from broker.flows.money import pay_out, payout_events, payout_terms, read_payouts
from broker.flows.money.export_payouts import Export, export
from broker.flows.money.pay_out_due import pay_out_due
from broker.flows.money.payout_events import Word
from broker.flows.money.payout_terms import Wishes
from broker.store.access.accounts import Role
from broker.store.money.payouts import Payout, PayoutStatus, Wanted
from pricing.money import parse_usd_nanos

Status = Annotated[PayoutStatus | None, QueryParameter(description="Only those of this status.")]
InBatch = Annotated[UUID | None, QueryParameter(name="batch", description="Only this batch's.")]
Record = Callable[[AsyncConnection, UUID, Word, datetime], Awaitable[Payout]]


@dataclass(frozen=True, slots=True)
class Asked:
    """Which payouts are asked for."""

    provider: str | None
    status: PayoutStatus | None
    batch: UUID | None


def read_asked(
    provider: ProviderName = None, status: Status = None, batch: InBatch = None
) -> Asked:
    """Read what narrows a list; a dependency of the handler."""
    return Asked(provider, status, batch)


GivenAsked = NamedDependency[Asked]
ASKED = {"asked": Provide(read_asked, sync_to_thread=False)}


class PayoutController(Controller):
    """`/api/payouts`"""

    path = "/payouts"
    tags = ("Payouts",)

    @get(guards=[PAYEES], dependencies=ASKED, summary="List payouts")
    async def list(
        self,
        caller: GivenCaller,
        engine: GivenEngine,
        asked: GivenAsked,
        limit: Limit = 100,
        cursor: After = None,
    ) -> PayoutList:
        whose = None
        if asked.provider is not None:
            whose = await read_payouts.concerned(engine, caller, asked.provider)
        wanted = Wanted(whose, asked.status, asked.batch, cursor, limit)
        found = await read_payouts.list_payouts(engine, caller, wanted)
        full = len(found) == limit
        return PayoutList(
            payouts=[payout_shown(each) for each in found], cursor=found[-1].id if full else None
        )

    @post(guards=[PAYEES], summary="Pay out what is available")
    async def make(
        self,
        data: JSONBody[PayoutWanted],
        caller: GivenCaller,
        engine: GivenEngine,
        now: GivenTime,
        once: GivenOnce,
    ) -> Response[PayoutList]:
        """A provider's own, an operator one provider's, or without a name those of all who are
        due; each of these is made for itself, and made once anyhow."""

        async def act(connection: AsyncConnection) -> PayoutList:
            if caller.role is Role.OPERATOR and data.provider is None:
                made = await pay_out_due(engine, caller.name, now)
            else:
                made = [await pay_out.ask(connection, caller, data.provider, now)]
            return PayoutList(payouts=[payout_shown(each) for each in made])

        return await once(act)

    @get("/terms", guards=[PAYEES], summary="Schedule, threshold and destination")
    async def terms(
        self, caller: GivenCaller, engine: GivenEngine, provider: ProviderName = None
    ) -> TermsShown:
        whose = await read_payouts.concerned(engine, caller, provider)
        return terms_shown(await payout_terms.read(engine, whose))

    @put("/terms", guards=[PROVIDERS], summary="Set schedule, threshold and destination")
    async def wish(
        self,
        data: JSONBody[TermsWanted],
        caller: GivenCaller,
        parts: GivenParts,
        now: GivenTime,
    ) -> TermsShown:
        threshold = data.threshold_usd
        wishes = Wishes(
            data.schedule,
            None if threshold is None else parse_usd_nanos(threshold),
            data.destination,
            data.currency,
            payout_terms.offered(parts.settings.payouts),
        )
        async with parts.engine.begin() as connection:
            return terms_shown(
                await payout_terms.wish(connection, caller, wishes, parts.sealer, now)
            )

    @get("/batches", guards=[OPERATORS], summary="List batches")
    async def batches(
        self, engine: GivenEngine, limit: Limit = 100, cursor: After = None
    ) -> BatchList:
        found = await read_payouts.list_batches(engine, before=cursor, limit=limit)
        full = len(found) == limit
        return BatchList(
            batches=[batch_shown(each) for each in found], cursor=found[-1].id if full else None
        )

    @post("/batches/{batch_id:uuid}/export", guards=[OPERATORS], summary="Write a batch as a file")
    async def export(
        self,
        batch_id: FromPath[UUID],
        data: JSONBody[ExportWanted],
        caller: GivenCaller,
        parts: GivenParts,
        now: GivenTime,
    ) -> Response[bytes]:
        wanted = Export(batch_id, data.format, caller.name)
        desk = (parts.sealer, parts.settings.payouts)
        async with parts.engine.begin() as connection:
            file = await export(connection, wanted, desk, now)
        disposition = f'attachment; filename="{file.name}"'
        return Response(
            file.content,
            status_code=200,
            media_type=file.media_type,
            headers={"content-disposition": disposition, "cache-control": "no-store"},
        )

    @get("/{payout_id:uuid}", guards=[PAYEES], summary="A payout with its items")
    async def show(
        self, payout_id: FromPath[UUID], caller: GivenCaller, engine: GivenEngine
    ) -> PayoutDetail:
        return payout_detail(*await read_payouts.read_payout(engine, caller, payout_id))

    @post("/{payout_id:uuid}/confirm", guards=[OPERATORS], summary="The money has gone out")
    async def confirm(
        self,
        payout_id: FromPath[UUID],
        data: JSONBody[WordGiven],
        caller: GivenCaller,
        now: GivenTime,
        once: GivenOnce,
    ) -> Response[PayoutShown]:
        return await _record(payout_events.confirm, payout_id, _word(caller, data), (now, once))

    @post("/{payout_id:uuid}/fail", guards=[OPERATORS], summary="The money will not go out")
    async def fail(
        self,
        payout_id: FromPath[UUID],
        data: JSONBody[WordGiven],
        caller: GivenCaller,
        now: GivenTime,
        once: GivenOnce,
    ) -> Response[PayoutShown]:
        return await _record(payout_events.fail, payout_id, _word(caller, data), (now, once))

    @post("/{payout_id:uuid}/return", guards=[OPERATORS], summary="The money came back")
    async def give_back(
        self,
        payout_id: FromPath[UUID],
        data: JSONBody[WordGiven],
        caller: GivenCaller,
        now: GivenTime,
        once: GivenOnce,
    ) -> Response[PayoutShown]:
        return await _record(payout_events.give_back, payout_id, _word(caller, data), (now, once))


def _word(caller: Caller, given: WordGiven) -> Word:
    return Word(caller.name, given.reason, given.reference, given.checked)


async def _record(
    record: Record, payout_id: UUID, word: Word, means: tuple[datetime, Once]
) -> Response[PayoutShown]:
    now, once = means

    async def act(connection: AsyncConnection) -> PayoutShown:
        return payout_shown(await record(connection, payout_id, word, now))

    return await once(act, status=200)

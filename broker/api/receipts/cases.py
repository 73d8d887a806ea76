"""Cases that receipts have opened: listed to whom they concern, closed by operators."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath, FromQuery, JSONBody
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.api.callers import OPERATORS, allow
from broker.api.once import GivenOnce
from broker.api.parts import GivenCaller, GivenEngine, GivenTime
from broker.api.wire import After, Body, Limit, Reply
from broker.core.money.receipts import MEANINGS, CaseKind
from broker.flows.money.wording import REASON_MAX_CHARACTERS
from broker.flows.receipts.close_case import close_case, read_cases
from broker.store.access.accounts import Role
from broker.store.receipts.receipt_cases import Case, Wanted

Status = Literal["open", "closed", "all"]


class CaseShown(Reply):
    """Where receipt and broker differ. `further`: others of this kind at this deployment that were
    found while too many cases were open to open one for each.
    """

    id: UUID
    kind: CaseKind
    meaning: str
    deployment: str
    call_id: UUID
    attempt: int
    detail: dict[str, Any]
    further: int
    opened_at: datetime
    closed_at: datetime | None
    closed_by: str | None
    close_reason: str | None


class CaseList(Reply):
    """Cases, newest first; `cursor` asks for the page before."""

    cases: list[CaseShown]
    cursor: UUID | None


class CaseEnd(Body):
    """Why a case is closed."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=REASON_MAX_CHARACTERS)]


class CaseController(Controller):
    """`/api/cases`"""

    path = "/cases"
    tags = ("Receipts",)

    @get(
        summary="List cases: a provider's own, an operator's all",
        guards=[allow(Role.PROVIDER, Role.OPERATOR)],
    )
    async def list(
        self,
        engine: GivenEngine,
        caller: GivenCaller,
        status: FromQuery[Status] = "open",
        limit: Limit = 100,
        cursor: After = None,
    ) -> CaseList:
        is_open = None if status == "all" else status == "open"
        cases = await read_cases(engine, caller, Wanted(None, is_open, cursor, limit))
        following = cases[-1].id if len(cases) == limit else None
        return CaseList(cases=[_shown(each) for each in cases], cursor=following)

    @post("/{case_id:uuid}/close", summary="Close a case with a reason", guards=[OPERATORS])
    async def close(
        self,
        case_id: FromPath[UUID],
        data: JSONBody[CaseEnd],
        caller: GivenCaller,
        now: GivenTime,
        once: GivenOnce,
    ) -> Response[CaseShown]:
        async def act(connection: AsyncConnection) -> CaseShown:
            return _shown(await close_case(connection, caller, case_id, data.reason, now))

        return await once(act, status=200)


def _shown(case: Case) -> CaseShown:
    return CaseShown(
        id=case.id,
        kind=case.kind,
        meaning=MEANINGS[case.kind],
        deployment=case.deployment,
        call_id=case.call_id,
        attempt=case.attempt,
        detail=case.detail,
        further=case.further,
        opened_at=case.opened_at,
        closed_at=case.closed_at,
        closed_by=case.closed_by,
        close_reason=case.close_reason,
    )

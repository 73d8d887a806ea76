"""What operators watch: the audit log and the ledger's invariants."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from litestar import Controller, get
from litestar.params import FromQuery

from broker.api.callers import OPERATORS
from broker.api.parts import GivenEngine
from broker.api.wire import After, Limit, Reply
from broker.flows.check import check
from broker.flows.read_audit import read_audit


class DeedShown(Reply):
    """Who did what to which object."""

    id: UUID
    at: datetime
    author: str
    action: str
    object: str
    detail: dict[str, Any]


class AuditLog(Reply):
    """Deeds, newest first; `cursor` asks for the page before."""

    entries: list[DeedShown]
    cursor: UUID | None


class AlarmShown(Reply):
    """A row of an invariant view: something that must not be."""

    view: str
    row: dict[str, Any]


class LedgerChecked(Reply):
    """`ok` when there is no alarm."""

    ok: bool
    alarms: list[AlarmShown]


class OperationController(Controller):
    """`/api/audit` and `/api/ledger/check`"""

    guards = (OPERATORS,)
    tags = ("Operations",)

    @get("/audit", summary="Who did what")
    async def audit(
        self, engine: GivenEngine, limit: Limit = 100, cursor: After = None
    ) -> AuditLog:
        entries = await read_audit(engine, before=cursor, limit=limit)
        shown = [
            DeedShown(
                id=each.id,
                at=each.at,
                author=each.deed.author,
                action=each.deed.action,
                object=each.deed.target,
                detail=dict(each.deed.detail),
            )
            for each in entries
        ]
        return AuditLog(entries=shown, cursor=shown[-1].id if len(shown) == limit else None)

    @get("/ledger/check", summary="Ask whether the books balance")
    async def check(self, engine: GivenEngine, *, replay: FromQuery[bool] = False) -> LedgerChecked:
        alarms = await check(engine, replay=replay)
        shown = [AlarmShown(view=each.view, row=dict(each.row)) for each in alarms]
        return LedgerChecked(ok=not shown, alarms=shown)

"""What operators watch: the audit log and the ledger's invariants."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from litestar import Controller, get

from broker.api.callers import OPERATORS
from broker.api.parts import GivenEngine
from broker.api.wire import After, Limit, Reply
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

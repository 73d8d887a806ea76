"""The audit log, for operators."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Response, get
from litestar.di import NamedDependency, Provide
from litestar.params import QueryParameter

from broker.api import beside
from broker.api.callers import OPERATORS
from broker.api.parts import GivenEngine
from broker.api.wire import After, Limit, Reply, Since, Until, in_utc
from broker.flows.access.read_audit import read_audit
from broker.store.access.audit import Entry, Sought

Wanted = Annotated[str | None, QueryParameter(max_length=200, description="Exactly this.")]


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


def asked_deeds(
    author: Wanted = None,
    action: Wanted = None,
    object: Wanted = None,  # noqa: A002 - as the query names it
    since: Since = None,
    until: Until = None,
) -> Sought:
    """Read which entries are asked for."""
    return Sought(author, action, object, in_utc(since), in_utc(until))


class AuditController(Controller):
    """`/api/audit`"""

    guards = (OPERATORS,)
    tags = ("Operations",)

    @get(
        "/audit",
        summary="Who did what",
        dependencies={"sought": Provide(asked_deeds, sync_to_thread=False)},
    )
    async def audit(
        self,
        engine: GivenEngine,
        sought: NamedDependency[Sought],
        limit: Limit = 100,
        cursor: After = None,
    ) -> Response[AuditLog]:
        entries = await read_audit(engine, sought, before=cursor, limit=limit)
        return await beside.answer(partial(_log, entries, limit))


def _log(entries: list[Entry], limit: int) -> AuditLog:
    shown = [_shown(each) for each in entries]
    return AuditLog(entries=shown, cursor=shown[-1].id if len(shown) == limit else None)


def _shown(entry: Entry) -> DeedShown:
    return DeedShown(
        id=entry.id,
        at=entry.at,
        author=entry.deed.author,
        action=entry.deed.action,
        object=entry.deed.target,
        detail=dict(entry.deed.detail),
    )

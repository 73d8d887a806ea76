"""Finds calls: a form that says which, kept in the address, and what was found page by page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from litestar import Request, get

from broker.api.calls.call_filters import asked_calls, asked_service, asked_use
from broker.api.wire import asked_stretch, in_utc
from broker.errors import RequestMalformed
from broker.flows.calls.read_call import Asked, list_calls
from broker.store.access.accounts import Role
from broker.store.receipts.signed import time_of
from web import reads
from web.desk import Desk, GivenDesk
from web.painter import Page
from web.viewer import GivenViewer, Viewer

PAGE: Final = "/console/calls"
SHOWN: Final = 40
FIELDS: Final = {
    "status": ("Status", "502, or 5xx"),
    "model": ("Model", "as it was asked for"),
    "endpoint": ("Endpoint", "provider/endpoint"),
    "labels": ("Labels", "team=search, run=7"),
}
"""What it is called, and how it is written, by the name that it has under `/api` too."""
MORE: Final = {
    "key_id": ("Key", "what follows bk_"),
    "code": ("Code", "as in an error"),
    "task": ("Task", "chat"),
    "domain": ("Domain", "law"),
    "task_label": ("Task label", "your own"),
    "session_id": ("Session", "your own"),
}
TIMES: Final = {"from": "From", "to": "Before"}
_NAMES: Final = (*FIELDS, *MORE, *TIMES, "cursor")
_USE: Final = ("key_id", "task_label", "session_id", "labels")
_SERVICE: Final = ("task", "model", "domain", "code", "status")

AnyRequest = Request[Any, Any, Any]


@get("/calls")
async def find_calls(desk: GivenDesk, viewer: GivenViewer, request: AnyRequest) -> Page:
    """The form, and the newest calls that are as it says; as a piece, older ones alone."""
    told = {name: told for name in _NAMES if (told := request.query_params.get(name, "").strip())}
    error: RequestMalformed | None = None
    found: dict[str, Any] = {"calls": [], "older": None, "back_to": None}
    times: dict[str, datetime | None] = {}
    try:
        times |= {name: _moment(name, told.get(name)) for name in TIMES}
        found = await _find(desk, viewer, told, _asked(told, times))
    except RequestMalformed as malformed:
        if "hx-request" in request.headers:
            raise
        error = malformed
    if "hx-request" in request.headers:
        return desk.painter.page("_found.html", viewer=viewer, **found)
    sold = viewer.caller.role is Role.PROVIDER
    return desk.painter.page(
        "calls.html",
        status=error.status if error else 200,
        viewer=viewer,
        told=told,
        times=times,
        fields={"endpoint": FIELDS["endpoint"]} if sold else FIELDS,
        more={} if sold else MORE,
        labels=TIMES,
        error=error,
        **found,
    )


async def _find(
    desk: Desk, viewer: Viewer, told: Mapping[str, str], asked: Asked
) -> dict[str, Any]:
    engine = desk.parts.engine
    page = await list_calls(engine, viewer.caller, asked, limit=SHOWN)
    async with engine.connect() as connection:
        calls = await reads.calls(connection, [each.record.id for each in page.calls])
        lines = await desk.teller.lines(connection, viewer.caller, calls)
    older = None if page.after is None else urlencode({**told, "cursor": str(page.after)})
    return {
        "calls": lines,
        "older": older and f"{PAGE}?{older}",
        "back_to": page.after and time_of(page.after),
    }


def _asked(told: Mapping[str, str], times: Mapping[str, datetime | None]) -> Asked:
    """Return what the form asks for. Raises RequestMalformed."""
    use = asked_use(**{name: told.get(name) for name in _USE})
    service = asked_service(**{name: told.get(name) for name in _SERVICE})
    stretch = asked_stretch(times["from"], times["to"])
    return asked_calls(stretch, use, service, told.get("endpoint"), _cursor(told.get("cursor")))


def _moment(name: str, told: str | None) -> datetime | None:
    try:
        moment = in_utc(datetime.fromisoformat(told) if told else None)
        return moment and moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise RequestMalformed(f"{name}: not a time such as 2026-01-31T12:00Z.") from None


def _cursor(told: str | None) -> UUID | None:
    try:
        return UUID(told) if told else None
    except ValueError:
        raise RequestMalformed("cursor: not one that a former page gave.") from None

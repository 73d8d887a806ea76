"""Builds the console as an ASGI app that is served under `/console`."""

from __future__ import annotations

from typing import Any, cast

import structlog
from litestar import Litestar, Request, Response
from litestar.datastructures import CacheControlHeader
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.response import Redirect
from litestar.static_files import create_static_files_router
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from broker.api.lean import LeanLitestar
from broker.errors import (
    BrokerError,
    CallerUnknown,
    NotFound,
    RequestMalformed,
    RequestRefused,
    Unavailable,
    ValueUnkeepable,
)
from broker.store.away import is_database_away, is_unkeepable
from web.board import Boards
from web.desk import Desk
from web.domains import forget, show_domains, teach
from web.events import events
from web.login import HOME, LOGIN, log_in, log_out, show_login
from web.pages import market, series, show_board, show_call, show_endpoint
from web.painter import STATIC, Painter
from web.parts import Parts
from web.search import find_calls
from web.simulations import cancel_simulation, order_simulation, show_report, show_simulations
from web.viewer import Viewer, require_viewer

FORM_BYTES_MAX = 4 << 10
FORM_FIELDS_MAX = 200
"""Of nothing but fields, a form that brings examples would have half a million."""
_KEPT_S = 31_536_000
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
]

AnyRequest = Request[Any, Any, Any]


class FormRequest(Request[Any, Any, Any]):
    """Brings a form, of which no more is taken apart than a form has."""

    async def body(self) -> bytes:
        """Return the body. Raises RequestMalformed."""
        body = await super().body()
        if body.count(b"&") >= FORM_FIELDS_MAX:
            raise RequestMalformed(f"A form has at most {FORM_FIELDS_MAX} fields.")
        return body


def create_console(runtime: Parts) -> ASGIApp:
    """Return the console over the running broker; it answers paths with and without `/console`."""
    desk = Desk(runtime, Painter(), Boards(runtime))
    app = _litestar(desk)

    async def console(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            path = "/" + scope["path"].removeprefix(HOME).lstrip("/")
            # Litestar would take the root path off once more.
            within = {**scope, "path": path, "raw_path": path.encode(), "root_path": ""}
            scope = cast("Scope", within)
        await app(scope, receive, send)

    return console


def _litestar(desk: Desk) -> Litestar:
    async def viewer(request: AnyRequest) -> Viewer:
        return await require_viewer(desk.parts, request)

    def trouble(request: AnyRequest, error: Exception) -> Response[Any]:
        return _trouble(desk, request, error)

    static = create_static_files_router(
        "/static",
        directories=[STATIC],
        cache_control=CacheControlHeader(public=True, max_age=_KEPT_S, immutable=True),
    )
    return LeanLitestar(
        route_handlers=[
            market, show_board, show_endpoint, series, find_calls, show_call, events,
            show_login, log_in, log_out, static,
            show_simulations, order_simulation, cancel_simulation, show_report,
            show_domains, teach, forget,
        ],
        dependencies={
            "desk": Provide(lambda: desk, sync_to_thread=False),
            "viewer": Provide(viewer),
        },
        exception_handlers={Exception: trouble, HTTPException: trouble},
        before_send=[_guard],
        request_max_body_size=FORM_BYTES_MAX,
        request_class=FormRequest,
        openapi_config=None,
        logging_config=None,
        debug=False,
    )  # fmt: skip


async def _guard(message: Message, _: Scope) -> None:
    """Add the headers that keep the pages to themselves."""
    if message["type"] != "http.response.start":
        return
    given = {name.lower() for name, _ in message["headers"]}
    # A report says itself what it may do, which is less.
    headers = [*message["headers"], *(each for each in _HEADERS if each[0] not in given)]
    if b"cache-control" not in given:
        headers.append((b"cache-control", b"no-store"))
    message["headers"] = headers


def _trouble(desk: Desk, request: AnyRequest, error: Exception) -> Response[Any]:
    fragment = "hx-request" in request.headers
    if isinstance(error, CallerUnknown):
        return _ask_to_log_in(desk, request, error, fragment=fragment)
    return desk.painter.trouble(_told(request, error), fragment=fragment)


def _ask_to_log_in(
    desk: Desk, request: AnyRequest, error: CallerUnknown, *, fragment: bool
) -> Response[Any]:
    if fragment:
        answer = desk.painter.trouble(error, fragment=True)
        answer.headers["hx-redirect"] = LOGIN
        return answer
    if "text/html" not in request.headers.get("accept", ""):
        return desk.painter.trouble(error, fragment=True)
    if request.headers.get("sec-fetch-site") == "cross-site":
        # Who follows a link from elsewhere comes without the cookie; a step from here brings it.
        return desk.painter.page("bounce.html", login=LOGIN)
    return Redirect(LOGIN, status_code=303)


def _told(request: AnyRequest, error: Exception) -> BrokerError:
    """Return the error as it is told; nothing of an unexpected one, which is logged."""
    if isinstance(error, BrokerError):
        return error
    if is_database_away(error):
        return Unavailable("The database is away; the page works again once it is back.")
    if is_unkeepable(error):
        return ValueUnkeepable()
    if isinstance(error, HTTPException):
        if error.status_code in (404, 405):
            return NotFound("There is nothing here.")
        if error.status_code < 500:
            return RequestRefused("The request is malformed.", status=error.status_code)
    structlog.get_logger("broker.web").error(
        "page_broke", method=request.method, path=request.url.path, exc_info=error
    )
    return BrokerError("Something broke in the broker.")

"""Logging in, by a one-time link or a key, and out."""

from __future__ import annotations

import hmac
import secrets
from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import Cookie
from litestar.params import FromQuery, URLEncodedBody
from litestar.response import Redirect

from broker.errors import BrokerError, CallerUnknown, NotAllowed, ScopeMissing
from broker.flows.access import authenticate, login
from broker.flows.access.login import SESSION_COOKIE, SESSION_LIFETIME, Login
from web.desk import Desk, GivenDesk
from web.painter import Page
from web.viewer import GivenViewer, find_viewer

HOME = "/console"
LOGIN = f"{HOME}/login"
FORM_COOKIE = "broker_login"
"""Holds what the login form must send along: another site can neither read nor set it."""
_FORM_LIFETIME_S = 3_600
_KEY_CHARACTERS_MAX = 200

AnyRequest = Request[Any, Any, Any]
Form = URLEncodedBody[dict[str, str]]


@get("/login")
async def show_login(
    desk: GivenDesk, request: AnyRequest, token: FromQuery[str | None] = None
) -> Response[Any]:
    """Show the form; of a link one button, which redeems it: scanners of mail only look."""
    if token is not None:
        return _form(desk, request, token=token)
    if await find_viewer(desk.parts, request.cookies.get(SESSION_COOKIE)) is not None:
        return Redirect(HOME, status_code=303)
    return _form(desk, request)


@post("/login", status_code=200)
async def log_in(desk: GivenDesk, request: AnyRequest, data: Form) -> Response[Any]:
    """Open a session for the owner of a key, or of a link. Its token leaves the address bar."""
    _check(request.cookies.get(FORM_COOKIE, ""), data)
    try:
        opened = await _open(desk, data)
    except (CallerUnknown, ScopeMissing) as error:
        return _form(desk, request, error)
    return _enter(desk, opened)


async def _open(desk: Desk, data: dict[str, str]) -> Login:
    engine, now = desk.parts.engine, desk.parts.clock()
    token = data.get("token")
    if token is not None:
        return await login.redeem(engine, token, now)
    key = data.get("key", "").strip()[:_KEY_CHARACTERS_MAX]
    return await login.open_session(engine, await authenticate.by_key(engine, key, now), now)


@post("/logout", status_code=303)
async def log_out(desk: GivenDesk, viewer: GivenViewer, data: Form) -> Response[Any]:
    """End the session."""
    _check(viewer.csrf_token, data)
    await login.close_session(desk.parts.engine, viewer.session_token)
    return Redirect(LOGIN, status_code=303, cookies=[_cookie(desk, SESSION_COOKIE, "", 0)])


def _check(expected: str, data: dict[str, str]) -> None:
    given = data.get("csrf_token", "")
    if not expected or not hmac.compare_digest(given.encode(), expected.encode()):
        raise NotAllowed("The form has expired; load the page again.", code="csrf_token_invalid")


def _form(
    desk: Desk, request: AnyRequest, error: BrokerError | None = None, token: str | None = None
) -> Page:
    # A cookie that is there already stays, so that forms in two tabs both work.
    form_token = request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(32)
    page = desk.painter.page(
        "login.html",
        status=error.status if error else 200,
        error=error,
        form_token=form_token,
        token=token,
    )
    page.cookies.append(_cookie(desk, FORM_COOKIE, form_token, _FORM_LIFETIME_S))
    return page


def _enter(desk: Desk, opened: Login) -> Response[Any]:
    lifetime_s = round(SESSION_LIFETIME.total_seconds())
    cookie = _cookie(desk, SESSION_COOKIE, opened.token, lifetime_s)
    return Redirect(HOME, status_code=303, cookies=[cookie])


def _cookie(desk: Desk, name: str, value: str, lifetime_s: int) -> Cookie:
    return Cookie(
        key=name,
        value=value,
        max_age=lifetime_s,
        path=HOME,
        httponly=True,
        secure=desk.parts.settings.public_url.startswith("https://"),
        samesite="strict",
    )

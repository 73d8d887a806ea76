"""Tells who looks at the console: an account with a session, known by its cookie."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Any

from litestar import Request
from litestar.di import NamedDependency
from litestar.params import SkipValidation

from broker.errors import CallerUnknown, NotAllowed
from broker.flows.access.authenticate import Caller, of_session
from broker.flows.access.login import SESSION_COOKIE
from broker.store.access import sessions
from web.parts import Parts


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks, and the tokens of the session: `csrf_token` stands in forms, the other nowhere."""

    caller: Caller
    csrf_token: str
    session_token: str


GivenViewer = NamedDependency[SkipValidation[Viewer]]


async def find_viewer(parts: Parts, session_token: str | None) -> Viewer | None:
    """Return whose session this is, None when it is unknown or has ended."""
    if not session_token:
        return None
    async with parts.engine.connect() as connection:
        session = await sessions.find_session(connection, session_token, parts.clock())
    if session is None:
        return None
    return Viewer(of_session(session), session.csrf_token, session_token)


async def require_viewer(parts: Parts, request: Request[Any, Any, Any]) -> Viewer:
    """Return who asks. Raises CallerUnknown."""
    viewer = await find_viewer(parts, request.cookies.get(SESSION_COOKIE))
    if viewer is None:
        raise CallerUnknown("The session has ended; log in again.", code="session_ended")
    return viewer


def require_token(viewer: Viewer, given: str) -> None:
    """Make sure that a form is one of the viewer's own pages. Raises NotAllowed."""
    if not hmac.compare_digest(given.encode(), viewer.csrf_token.encode()):
        raise NotAllowed("The form has expired; load the page again.", code="csrf_token_invalid")

"""Domains on the console: who may teach them sees them, teaches them by a form, forgets them."""

from __future__ import annotations

from typing import Any, Final

from litestar import Response, get, post
from litestar.params import URLEncodedBody
from litestar.response import Redirect

from broker.core.quality.syllabus import EXAMPLES_MAX, EXAMPLES_MIN, NAME_CHARACTERS_MAX
from broker.errors import BrokerError, NotFound
from broker.flows.quality.teach_domain import forget_domain, teach_domain
from broker.store.access.accounts import Role
from broker.store.quality.domains import Listed, list_domains
from web.desk import Desk, GivenDesk
from web.painter import Page
from web.viewer import GivenViewer, Viewer, require_token

PAGE: Final = "/console/domains"
EXAMPLES_BYTES_MAX: Final = 1 << 20
"""Of a form, as of a body under `/api`."""

Form = URLEncodedBody[dict[str, str]]


@get("/domains")
async def show_domains(desk: GivenDesk, viewer: GivenViewer) -> Page:
    """All domains, and the form that teaches one."""
    _check_role(viewer)
    return await _page(desk, viewer)


@post("/domains", status_code=303, request_max_body_size=EXAMPLES_BYTES_MAX)
async def teach(desk: GivenDesk, viewer: GivenViewer, data: Form) -> Response[Any]:
    """Teach the domain of the form; what is wrong with it is told above it, and it stays filled."""
    _check(viewer, data)
    name, examples = data.get("name", "").strip(), data.get("examples", "")
    try:
        async with desk.parts.engine.begin() as connection:
            now = desk.parts.clock()
            await teach_domain(connection, viewer.caller, name, examples.splitlines(), now)
    except BrokerError as error:
        return await _page(desk, viewer, error, (name, examples))
    return Redirect(PAGE, status_code=303)


@post("/domains/forget", status_code=303)
async def forget(desk: GivenDesk, viewer: GivenViewer, data: Form) -> Response[Any]:
    """Forget the domain that the form names."""
    _check(viewer, data)
    async with desk.parts.engine.begin() as connection:
        now = desk.parts.clock()
        await forget_domain(connection, viewer.caller, data.get("name", ""), now)
    return Redirect(PAGE, status_code=303)


async def _page(
    desk: Desk,
    viewer: Viewer,
    error: BrokerError | None = None,
    filled: tuple[str, str] = ("", ""),
) -> Page:
    async with desk.parts.engine.connect() as connection:
        known = await list_domains(connection)
    return desk.painter.page(
        "domains.html",
        status=error.status if error else 200,
        viewer=viewer,
        domains=[(each, _is_own(viewer, each)) for each in known],
        examples_min=EXAMPLES_MIN,
        examples_max=EXAMPLES_MAX,
        name_max=NAME_CHARACTERS_MAX,
        filled=filled,
        error=error,
    )


def _is_own(viewer: Viewer, domain: Listed) -> bool:
    caller = viewer.caller
    return caller.role is Role.OPERATOR or domain.owner_id == caller.account_id


def _check(viewer: Viewer, data: dict[str, str]) -> None:
    _check_role(viewer)
    require_token(viewer, data.get("csrf_token", ""))


def _check_role(viewer: Viewer) -> None:
    if viewer.caller.role is Role.CONSUMER:
        raise NotFound("There is nothing here.")

"""What-if on the console: operators order simulations, watch them, and open their reports."""

from __future__ import annotations

import asyncio
import math
import re
from typing import Any, cast
from uuid import UUID

import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath, URLEncodedBody
from litestar.response import Redirect

from broker.api.market.simulations import REPORT_HEADERS, SimulationAsked
from broker.core.wire.complaints import placed
from broker.errors import BrokerError, NotFound, RequestMalformed
from broker.flows.market import order_simulation as orders
from broker.store.access.accounts import Role
from web.desk import Desk, GivenDesk
from web.painter import Page
from web.viewer import GivenViewer, Viewer, require_token

PAGE = "/console/simulations"
SHOWN = 20
SEEDS_DEFAULT, SEEDS_MAX = 5, 100
DAYS = (1, 7, 30)
Filled = dict[str, Any]
"""What stands in the form."""
USUAL: Filled = {
    "what": "flash_crowd",
    "controllers": ("posted", "excess"),
    "seeds": SEEDS_DEFAULT,
    "settings": "",
    "grid": "",
    "static": True,
}

_BLANKS = re.compile(r"\s*([=,:])\s*")

AnyRequest = Request[Any, Any, Any]
Form = URLEncodedBody[dict[str, Any]]


@get("/simulations")
async def show_simulations(desk: GivenDesk, viewer: GivenViewer, request: AnyRequest) -> Page:
    """The form and the newest orders; as a piece, the orders alone."""
    _check_role(viewer)
    template = "_orders.html" if "hx-request" in request.headers else "simulations.html"
    return await _page(desk, viewer, template)


@post("/simulations", status_code=303)
async def order_simulation(desk: GivenDesk, viewer: GivenViewer, data: Form) -> Response[Any]:
    """Order what the form says; what is wrong with it is told above it."""
    _check(viewer, data)
    try:
        asked = _asked(data)
        async with desk.parts.engine.begin() as connection:
            now = desk.parts.clock()
            await orders.order_simulation(connection, viewer.caller, asked, now)
    except BrokerError as error:
        return await _page(desk, viewer, "simulations.html", (error, _filled(data)))
    return Redirect(PAGE, status_code=303)


@post("/simulations/{order_id:uuid}/cancel", status_code=303)
async def cancel_simulation(
    desk: GivenDesk, viewer: GivenViewer, data: Form, order_id: FromPath[UUID]
) -> Response[Any]:
    """Call an order off."""
    _check(viewer, data)
    async with desk.parts.engine.begin() as connection:
        now = desk.parts.clock()
        await orders.cancel_simulation(connection, viewer.caller, order_id, now)
    return Redirect(PAGE, status_code=303)


@get("/simulations/{order_id:uuid}/report")
async def show_report(
    desk: GivenDesk, viewer: GivenViewer, order_id: FromPath[UUID]
) -> Response[bytes]:
    """The report of an order that is done, in an origin of its own."""
    _check_role(viewer)
    page = await orders.read_report(desk.parts.engine, order_id)
    return Response(page, media_type="text/html; charset=utf-8", headers=REPORT_HEADERS)


async def _page(
    desk: Desk, viewer: Viewer, template: str, wrong: tuple[BrokerError, Filled] | None = None
) -> Page:
    error, filled = wrong or (None, USUAL)
    found = await orders.read_simulations(desk.parts.engine, SHOWN)
    offered = await asyncio.to_thread(orders.offered) if template == "simulations.html" else {}
    return desk.painter.page(
        template,
        status=error.status if error else 200,
        viewer=viewer,
        orders=found,
        is_open=any(each.ended_at is None for each in found),
        offered=offered,
        days=DAYS,
        filled=filled,
        seeds_max=SEEDS_MAX,
        error=error,
    )


def _filled(data: dict[str, Any]) -> Filled:
    """What somebody filled in, who should not have to do so twice."""
    words = {name: _text(data, name) for name in ("what", "seeds", "settings", "grid")}
    return words | {"controllers": _texts(data, "controllers"), "static": "static" in data}


def _asked(data: dict[str, Any]) -> dict[str, Any]:
    """The order of a form, as the API takes it. Raises RequestMalformed."""
    what, seeds = _text(data, "what"), _text(data, "seeds")
    market = what.removeprefix("market:")
    chosen = {"from_broker_days": _value(market)} if market != what else {"scenario": what}
    order = chosen | {
        "controllers": _texts(data, "controllers"),
        "seeds": _value(seeds) if seeds else SEEDS_DEFAULT,
        "settings": {
            name: _value(value) for name, value in _pairs(_text(data, "settings"), "VALUE")
        },
        "grid": {
            name: values if ":" in values else [_value(each) for each in values.split(",")]
            for name, values in _pairs(_text(data, "grid"), "A,B,C or NAME=FROM:TO:COUNT")
        },
        "static": "static" in data,
    }
    try:
        return cast("dict[str, Any]", msgspec.to_builtins(msgspec.convert(order, SimulationAsked)))
    except msgspec.ValidationError as error:
        raise RequestMalformed(f"{placed(str(error), SimulationAsked)}.") from None


def _pairs(told: str, form: str) -> list[tuple[str, str]]:
    """What is written NAME= and then in this form, apart by blanks, of which some may stand about
    `=`, `,` and `:`. Raises RequestMalformed."""
    pairs = []
    for each in _BLANKS.sub(r"\1", told).split():
        name, _, value = each.partition("=")
        if not name or not value:
            raise RequestMalformed(f"'{each}' is not written NAME={form}.")
        pairs.append((name, value))
    return pairs


def _value(told: str) -> float | str | bool:
    if told in ("true", "false"):
        return told == "true"
    try:
        number = int(told) if told.lstrip("-").isdecimal() else float(told)
    except ValueError:
        return told
    return told if isinstance(number, float) and not math.isfinite(number) else number


def _text(data: dict[str, Any], name: str) -> str:
    return (_texts(data, name) or [""])[-1].strip()


def _texts(data: dict[str, Any], name: str) -> list[str]:
    value = data.get(name, [])
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _check(viewer: Viewer, data: dict[str, Any]) -> None:
    _check_role(viewer)
    require_token(viewer, _text(data, "csrf_token"))


def _check_role(viewer: Viewer) -> None:
    if viewer.caller.role is not Role.OPERATOR:
        raise NotFound("There is nothing here.")

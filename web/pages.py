"""The pages and their pieces: the market, one endpoint, the viewer's calls, one call."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from litestar import Request, get
from litestar.params import FromPath, PathParameter, QueryParameter
from sqlalchemy import Row

from broker.core.health.pulse import TTFT_MS_PRIOR
from broker.errors import NotFound
from broker.flows.quality.read_gaps import read_gaps_of
from web import reads, words
from web.board import BoardRow, owns, rate_of
from web.desk import Desk, GivenDesk
from web.painter import Page
from web.tale import tell
from web.viewer import GivenViewer, Viewer

CALLS_SHOWN = 40
WINDOWS_MINUTES = (10, 60, 1_440)
_POINTS_MAX = 600

AnyRequest = Request[Any, Any, Any]
Minutes = Annotated[int, QueryParameter(ge=1, le=WINDOWS_MINUTES[-1])]
Number = Annotated[int, PathParameter(ge=0, le=2**31 - 1)]
Chosen = Annotated[int | None, QueryParameter(ge=0, le=2**31 - 1)]


@get("/")
async def market(desk: GivenDesk, viewer: GivenViewer, endpoint: Chosen = None) -> Page:
    """The one page: market, chosen endpoint, own calls."""
    return await _market(desk, viewer, endpoint)


async def _market(desk: Desk, viewer: Viewer, endpoint: int | None) -> Page:
    caller = viewer.caller
    board = await desk.boards.look(caller, endpoint)
    async with desk.parts.engine.connect() as connection:
        calls = await desk.teller.last_calls(connection, caller, CALLS_SHOWN)
        waiting = await reads.waiting(connection, caller)
        purse = await reads.purse(connection, caller)
    chosen = board.row(endpoint) if endpoint is not None else None
    if chosen is None and board.rows:
        own = (row for row in board.rows if owns(caller, row.endpoint))
        chosen = next(own, board.rows[0])
    return desk.painter.page(
        "market.html",
        viewer=viewer,
        board=board,
        calls=calls,
        waiting=waiting,
        purse=purse,
        public_url=desk.parts.settings.public_url,
        **(await _details(desk, viewer, chosen) if chosen else {"chosen": None}),
    )


@get("/board")
async def show_board(desk: GivenDesk, viewer: GivenViewer) -> Page:
    """The rows of the market alone, for when endpoints have come or gone."""
    board = await desk.boards.look(viewer.caller)
    return desk.painter.page(
        "_board.html", board=board, chosen=None, public_url=desk.parts.settings.public_url
    )


@get("/endpoints/{number:int}")
async def show_endpoint(
    desk: GivenDesk, viewer: GivenViewer, request: AnyRequest, number: Number
) -> Page:
    """The panel of one endpoint; opened as a page of its own, it is the market with it chosen."""
    if "hx-request" not in request.headers:
        return await _market(desk, viewer, number)
    row = (await desk.boards.look(viewer.caller, number)).row(number)
    if row is None:
        raise NotFound("There is no such endpoint.")
    return desk.painter.page("_endpoint.html", **await _details(desk, viewer, row))


@get("/endpoints/{number:int}/series")
async def series(
    desk: GivenDesk, viewer: GivenViewer, number: Number, minutes: Minutes = WINDOWS_MINUTES[0]
) -> dict[str, list[float]]:
    """Price in USD (per Mtok out, else in, else per call) and load over time, oldest first."""
    row = (await desk.boards.look(viewer.caller, number)).row(number)
    if row is None:
        raise NotFound("There is no such endpoint.")
    now, window = desk.parts.clock(), timedelta(minutes=minutes)
    since = now - window
    step = timedelta(seconds=max(1, round(window.total_seconds() / _POINTS_MAX)))
    async with desk.parts.engine.connect() as connection:
        steps = await reads.price_steps(connection, since, step, [number])
    points = [_point(each, since.timestamp()) for each in steps]
    if row.rate is not None:
        points.append((now.timestamp(), words.headline(row.rate), row.load))
    return {
        "at": [round(at, 1) for at, _, _ in points],
        "price": [price for _, price, _ in points],
        "load": [round(load, 4) for _, _, load in points],
    }


@get("/calls/{call_id:uuid}")
async def show_call(
    desk: GivenDesk, viewer: GivenViewer, request: AnyRequest, call_id: FromPath[UUID]
) -> Page:
    """The story of one call, as a piece or as a page."""
    async with desk.parts.engine.connect() as connection:
        tale = await tell(connection, desk.teller, viewer.caller, call_id)
    template = "_tale.html" if "hx-request" in request.headers else "tale.html"
    return desk.painter.page(template, viewer=viewer, tale=tale)


def _point(step: Row[Any], since_s: float) -> tuple[float, float, float]:
    # What was in force when the window opened is drawn from its edge on.
    at_s = max(step.at.timestamp(), since_s)
    return at_s, words.headline(rate_of(step)), float(step.load)


async def _details(desk: Desk, viewer: Viewer, row: BoardRow) -> dict[str, Any]:
    pulse, number = desk.parts.pulse, row.number
    ttft_ms = float(pulse.ttft_ms[number])
    async with desk.parts.engine.connect() as connection:
        examined = await reads.examined(connection, number)
        now = desk.parts.clock()
        gaps = await read_gaps_of(connection, viewer.caller, row.endpoint, now)
    return {
        "chosen": row,
        "examined": examined,
        "gaps": gaps,
        "inner": owns(viewer.caller, row.endpoint),
        "availability": float(pulse.availability[number]),
        "ttft_ms": ttft_ms if ttft_ms != TTFT_MS_PRIOR else None,
        "windows": WINDOWS_MINUTES,
    }

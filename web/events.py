"""The event stream of the console: what changed of the market and of the viewer's calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
from litestar import get
from litestar.response import ServerSentEventMessage

from broker.api.streams import CountedEvents
from broker.flows.calls.read_call import newest_calls
from broker.store.away import is_database_away
from web import reads
from web.board import Board
from web.desk import Desk, GivenDesk
from web.pages import CALLS_SHOWN
from web.viewer import GivenViewer, Viewer, find_viewer

BEAT_S = 1.0
CALLS_EVERY_BEATS = 2
STREAM_S_MAX = 3_600.0
"""Then it ends, and the browser comes back by itself."""
RETRY_MS = 2_000


@get("/events")
async def events(desk: GivenDesk, viewer: GivenViewer) -> CountedEvents:
    """Events `board` (JSON), `calls` (HTML, newest first), `purse` (HTML), `away`, `ended`."""
    place = desk.streams.take(viewer.caller.account_id)
    return CountedEvents(place, _messages(desk, viewer), RETRY_MS)


@dataclass(slots=True)
class _Told:
    """What a stream has said already, so that it need not say it again."""

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    calls: set[UUID] = field(default_factory=set)
    purse: str = ""


async def _messages(desk: Desk, viewer: Viewer) -> AsyncIterator[ServerSentEventMessage]:
    parts, told = desk.parts, _Told()
    ends_s = parts.now_s() + STREAM_S_MAX
    beat = 0
    while not parts.stopping and parts.now_s() < ends_s:
        if beat % CALLS_EVERY_BEATS == 0:
            try:
                current = await find_viewer(parts, viewer.session_token)
                if current is None:
                    yield ServerSentEventMessage(event="ended", data="session")
                    return
                viewer = current
                news = await _news(desk, viewer, told)
            except Exception as error:
                if not is_database_away(error):
                    raise
                news = [ServerSentEventMessage(event="away", data="database")]
            for message in news:
                yield message
        yield _changes(await desk.boards.look(viewer.caller), told)
        beat += 1
        await asyncio.sleep(BEAT_S)


def _changes(board: Board, told: _Told) -> ServerSentEventMessage:
    cells = {row.number: row.cells() for row in board.rows}
    changed = [each for number, each in cells.items() if told.rows.get(number) != each]
    told.rows = cells
    news = {
        "at": board.at.timestamp(),
        "version": board.version,
        "ready": f"{board.ready}/{board.listed}",
        "in_flight": board.in_flight,
        "members": board.members,
        "rows": changed,
    }
    return ServerSentEventMessage(event="board", data=msgspec.json.encode(news))


async def _news(desk: Desk, viewer: Viewer, told: _Told) -> list[ServerSentEventMessage]:
    async with desk.parts.engine.connect() as connection:
        ids = await newest_calls(connection, viewer.caller, CALLS_SHOWN)
        fresh = [each for each in ids if each not in told.calls]
        calls = await reads.calls(connection, fresh) if fresh else []
        lines = await desk.teller.lines(connection, viewer.caller, calls) if calls else []
        purse = await reads.purse(connection, viewer.caller)
    messages = []
    if lines:
        told.calls = set(ids)
        html = desk.painter.html("_calls.html", calls=lines, viewer=viewer)
        messages.append(ServerSentEventMessage(event="calls", data=html))
    shown = desk.painter.html("_purse.html", purse=purse)
    if shown != told.purse:
        told.purse = shown
        messages.append(ServerSentEventMessage(event="purse", data=shown))
    return messages

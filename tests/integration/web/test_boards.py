"""How the market is looked at for all viewers: beside the calls, and whoever of them leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import event

from broker.flows.access.authenticate import Caller
from broker.flows.market.read_prices import Listing
from tests.integration.api.beside import done_beside
from tests.integration.web.bourse import Bourse, chat, server
from tests.integration.web.conftest import People
from web.board import Boards


async def test_what_a_viewer_sees_is_read_and_chosen_beside_the_calls(
    bourse: Bourse, people: People
) -> None:
    viewer = Caller(people.clinic.id, people.clinic.name, people.clinic.role)
    with done_beside() as done:
        board = await Boards(bourse).look(viewer)
    listings, sight, _ = done.results()
    assert all(isinstance(each, Listing) for each in listings)
    assert [each.endpoint for each in sight.shown] == [row.endpoint for row in board.rows]
    assert board.listed == len(board.rows) > 0


async def test_who_leaves_while_a_history_is_read_leaves_nobody_without_it(
    bourse: Bourse, people: People
) -> None:
    viewer = Caller(people.clinic.id, people.clinic.name, people.clinic.role)
    boards, began_s = Boards(bourse), bourse.now_s()
    bourse.now_s = lambda: began_s
    await boards.look(viewer)
    await bourse.offer(people.acme, server("late", chat("late")))
    late = bourse.market.by_name["acme/late"]
    bourse.now_s = lambda: began_s + 1.0
    looking = asyncio.create_task(boards.look(viewer))

    def leave(*asked: Any) -> None:
        if "console_prices" in asked[2]:
            looking.cancel()

    event.listen(bourse.engine.sync_engine, "before_cursor_execute", leave)
    with pytest.raises(asyncio.CancelledError):
        await looking
    event.remove(bourse.engine.sync_engine, "before_cursor_execute", leave)
    row = (await boards.look(viewer)).row(late)
    assert row is not None
    assert row.spark.startswith("M0.0 "), "its price is known since the window began"

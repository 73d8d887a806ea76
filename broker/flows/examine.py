"""Examines endpoints that claim a domain on its suite, beside whatever else a worker does.

What has no examination yet is ordered, a worker takes a few orders at a time, and what an order
came to is evidence from then on. A worker that dies leaves its orders to others, which begin anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.catalog import Endpoint
from broker.core.evidence import Piece
from broker.core.examination import ENOUGH
from broker.core.suites import SAMPLE, Item, Suite, sample
from broker.flows.ask_endpoint import can_be_asked
from broker.flows.mark_answers import Marker, Task
from broker.store import catalog, evidence, examinations, suites
from broker.store.away import DATABASE_AWAY
from broker.store.examinations import Order
from broker.store.sealing import Sealer

PLACES: Final = 4
"""Examinations under way at once in one process."""
AT_ONCE: Final = 4
"""Prompts put to an endpoint at once, or as many as it has places."""
LEASED: Final = timedelta(minutes=5)
AUTHOR: Final = "registration"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Hall:
    """What examining takes."""

    engine: AsyncEngine
    sealer: Sealer
    marker: Marker
    clock: Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class _Paper:
    """What one endpoint is put."""

    endpoint: Endpoint
    suite: Suite
    tasks: tuple[Task, ...]


class Examiner:
    """Examines, for one worker process."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._sittings: set[asyncio.Task[None]] = set()
        # The worker has few connections, which its other jobs need too.
        self._books = asyncio.Semaphore(1)

    async def look(self) -> int:
        """Order what is due, and begin what is ordered as far as there are places; return how many
        were begun."""
        free = PLACES - len(self._sittings)
        if free <= 0:
            return 0
        now = self._hall.clock()
        async with self._books, self._hall.engine.begin() as connection:
            claims = await examinations.unexamined(connection)
            await examinations.order(connection, claims, AUTHOR, now)
            taken = await examinations.take(connection, free, now, now + LEASED)
        for order in taken:
            sitting = asyncio.create_task(self._sit(order))
            self._sittings.add(sitting)
            sitting.add_done_callback(self._sittings.discard)
        return len(taken)

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        while self._sittings:
            await asyncio.wait(self._sittings)

    async def _sit(self, order: Order) -> None:
        try:
            async with self._books, self._hall.engine.begin() as connection:
                paper = await self._prepare(connection, order)
            if paper is not None:
                await self._end(order, paper, await self._put(order, paper))
        except DATABASE_AWAY as error:
            _log.warning("examination_left_for_later", order=str(order.id), reason=str(error))
        except Exception:  # one must not go unseen; when its lease ends, it is begun anew
            _log.exception("examination_failed", order=str(order.id))

    async def _prepare(self, connection: AsyncConnection, order: Order) -> _Paper | None:
        """Lay an examination out; None where it is not to be, which is written down."""
        now = self._hall.clock()
        suite = await suites.find(connection, order.domain)
        _, listed = await catalog.load_market(connection, self._hall.sealer)
        by_name = {each.name: each for each in listed}
        endpoint = next((each for each in listed if each.id == order.endpoint_id), None)
        problem = _obstacle(suite, endpoint)
        if problem or suite is None or endpoint is None:
            await examinations.end(connection, order.id, now, problem=problem)
            return None
        items = sample(suite.items, SAMPLE, Random(order.id.int))  # noqa: S311 - keeps no secret
        tasks = tuple(Task.of(each, endpoint, by_name) for each in items)
        for task in tasks:
            for asked, call_id in task.calls:
                await examinations.note_test_calls(connection, asked.id, [call_id], now)
        await examinations.begin(connection, order.id, len(tasks), now)
        return _Paper(endpoint, suite, tasks)

    async def _put(self, order: Order, paper: _Paper) -> list[tuple[Item, float]]:
        """Put the prompts; return the scores of those that had an answer."""
        places = asyncio.Semaphore(min(AT_ONCE, paper.endpoint.deployment.capacity))
        scored: list[tuple[Item, float]] = []
        put = 0

        async def one(task: Task) -> None:
            nonlocal put
            async with places:
                hopeless = put - len(scored) > len(paper.tasks) * (1.0 - ENOUGH)
                score = None if hopeless else await self._hall.marker.mark(task)
            put += 1
            if score is not None:
                scored.append((task.item, score))
            until = self._hall.clock() + LEASED
            async with self._books, self._hall.engine.begin() as connection:
                await examinations.proceed(connection, order.id, put, until)

        await asyncio.gather(*map(one, paper.tasks))
        return scored

    async def _end(self, order: Order, paper: _Paper, scored: list[tuple[Item, float]]) -> None:
        now, count = self._hall.clock(), len(scored)
        if count < max(len(paper.tasks) * ENOUGH, 1):
            problem = f"Only {count} of {len(paper.tasks)} prompts had an answer."
            async with self._books, self._hall.engine.begin() as connection:
                await examinations.end(connection, order.id, now, problem=problem)
            return
        pieces = await self._pieces(paper, scored, now)
        mean = min(sum(score for _, score in scored) / count, 1.0)
        async with self._books, self._hall.engine.begin() as connection:
            if await examinations.end(connection, order.id, now, found=(mean, count)):
                await evidence.record(connection, pieces)
        _log.info("examined", endpoint=paper.endpoint.name, domain=order.domain, score=mean)

    async def _pieces(
        self, paper: _Paper, scored: list[tuple[Item, float]], now: datetime
    ) -> list[Piece]:
        marker = self._hall.marker
        about = (paper.endpoint, paper.suite, now)
        return [await marker.piece(item, score, about) for item, score in scored]


def _obstacle(suite: Suite | None, endpoint: Endpoint | None) -> str | None:
    if endpoint is None:
        return "The endpoint is not on the market."
    if suite is None:
        return "There is no suite for the domain any more."
    return None if can_be_asked(endpoint) else "The endpoint does not answer in words."

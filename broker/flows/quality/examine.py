"""Examines endpoints that claim a domain on its suite, beside whatever else a worker does.

What has no examination yet is ordered, a worker takes a few orders at a time, and what an order
came to is evidence from then on. A worker that dies leaves its orders to others, which begin anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.answers.examination import ENOUGH
from broker.core.answers.suites import Item, Suite
from broker.core.catalog import Endpoint
from broker.core.quality.evidence import Piece
from broker.flows.calls.ask_endpoint import NOT_EXAMINED, form_of
from broker.flows.quality.mark_answers import Marked, Marker, Task
from broker.store.away import DATABASE_AWAY, told
from broker.store.market.listed import Listed
from broker.store.quality import evidence, examinations, suites
from broker.store.quality.examinations import Order

PLACES: Final = 4
"""Examinations under way at once in one process."""
AT_ONCE: Final = 4
"""Prompts put to an endpoint at once, or as many as it has places."""
LEASED: Final = timedelta(minutes=5)
_RENEWALS: Final = 4
"""So often within a lease it is renewed."""
BORNE: Final = 2
"""So many examinations may fail for want of answers; in the next a prompt without one was failed.
Else who never answers would never be refuted."""
OWN_RUNS_KEPT: Final = timedelta(days=30)
AUTHOR: Final = "registration"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Hall:
    """What examining takes."""

    engine: AsyncEngine
    marker: Marker
    clock: Callable[[], datetime]
    listed: Listed
    """For each examination and canary what has changed is read, and not all of a large catalog."""
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Of `listed`: one reads at a time."""

    async def endpoints(self, connection: AsyncConnection) -> tuple[Endpoint, ...]:
        """Return who is listed now."""
        async with self.reading:
            await self.listed.read(connection)
            return self.listed.endpoints


@dataclass(frozen=True, slots=True)
class _Paper:
    """What one endpoint is put."""

    endpoint: Endpoint
    suite: Suite
    tasks: tuple[Task, ...]
    share: float
    """What its evidence weighs: less, the more often the provider had this done."""
    run_id: UUID
    """Of the evidence. What a provider orders adds to what is known and replaces nothing, else it
    would be repeated until chance was kind."""
    borne: bool
    """Prompts without an answer are no evidence yet."""


class Examiner:
    """Examines, for one worker process."""

    def __init__(self, hall: Hall, leased: timedelta = LEASED) -> None:
        """What is taken is kept from other workers for `leased` after this one was last alive."""
        self._hall = hall
        self._leased = leased
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
            claims = await examinations.unexamined(connection, now)
            await examinations.order(connection, claims, AUTHOR, now)
            taken = await examinations.take(connection, free, now, now + self._leased)
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
            async with self._kept(order):
                async with self._books, self._hall.engine.begin() as connection:
                    paper = await self._prepare(connection, order)
                if paper is not None:
                    await self._end(order, paper, await self._put(order, paper))
        except DATABASE_AWAY as error:
            _log.warning("examination_left_for_later", order=str(order.id), reason=told(error))
        except Exception:  # one must not go unseen; when its lease ends, it is begun anew
            _log.exception("examination_failed", order=str(order.id))

    @contextlib.asynccontextmanager
    async def _kept(self, order: Order) -> AsyncIterator[None]:
        """Keep an order from other workers meanwhile, however long an answer takes."""
        renewing = asyncio.create_task(self._renew(order))
        try:
            yield
        finally:
            renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await renewing

    async def _renew(self, order: Order) -> None:
        while True:
            await asyncio.sleep(self._leased.total_seconds() / _RENEWALS)
            try:
                async with self._books, self._hall.engine.begin() as connection:
                    until = self._hall.clock() + self._leased
                    await examinations.keep(connection, order.id, until)
            except DATABASE_AWAY as error:
                _log.warning("examination_not_kept", order=str(order.id), reason=told(error))

    async def _prepare(self, connection: AsyncConnection, order: Order) -> _Paper | None:
        """Lay an examination out; None where it is not to be, which is written down."""
        now = self._hall.clock()
        suite = await suites.find(connection, order.domain)
        listed = await self._hall.endpoints(connection)
        by_name = {each.name: each for each in listed}
        endpoint = next((each for each in listed if each.id == order.endpoint_id), None)
        if suite is not None and endpoint is not None:
            form = form_of(endpoint)
            suite = suite if form is None else suite.part(form)
        problem = _obstacle(suite, endpoint)
        if problem or suite is None or endpoint is None:
            await examinations.end(connection, order.id, now, problem=problem)
            return None
        items = suite.draw(Random(order.id.int))  # noqa: S311 - keeps no secret
        tasks = tuple(Task.of(each, endpoint, by_name) for each in items)
        for task in tasks:
            for asked, call_id in task.calls:
                await examinations.note_test_calls(connection, asked.id, [call_id], now)
        await examinations.begin(connection, order.id, len(tasks), now)
        before = await examinations.before(connection, order, now - OWN_RUNS_KEPT)
        own = order.author == endpoint.name.partition("/")[0]
        share = 1.0 / (before.own + 1) if own else 1.0
        run_id = (before.others if own else None) or order.id
        return _Paper(endpoint, suite, tasks, share, run_id, before.failed < BORNE)

    async def _put(self, order: Order, paper: _Paper) -> list[tuple[Item, Marked]]:
        """Put the prompts, until too many had no answer; return what came of them."""
        places = asyncio.Semaphore(min(AT_ONCE, paper.endpoint.deployment.capacity))
        marked: list[tuple[Item, Marked]] = []
        put = failed = 0

        async def one(task: Task) -> None:
            nonlocal put, failed
            async with places:
                if failed <= len(paper.tasks) * (1.0 - ENOUGH):
                    told = await self._hall.marker.mark(task)
                    marked.append((task.item, told))
                    failed += told.score is None
            put += 1
            until = self._hall.clock() + self._leased
            async with self._books, self._hall.engine.begin() as connection:
                await examinations.proceed(connection, order.id, put, until)

        await asyncio.gather(*map(one, paper.tasks))
        return marked

    async def _end(self, order: Order, paper: _Paper, marked: list[tuple[Item, Marked]]) -> None:
        now, scored = self._hall.clock(), _scored(paper, marked)
        count = len(scored)
        if count < max(len(paper.tasks) * ENOUGH, 1):
            problem = _problem(paper, [each for _, each in marked])
            _log.warning("examined_in_vain", endpoint=paper.endpoint.name, problem=problem)
            async with self._books, self._hall.engine.begin() as connection:
                await examinations.end(connection, order.id, now, problem=problem)
            return
        pieces = await self._pieces(paper, scored, now)
        mean = min(sum(each.score or 0.0 for _, each in scored) / count, 1.0)
        async with self._books, self._hall.engine.begin() as connection:
            if await examinations.end(connection, order.id, now, found=(mean, count)):
                await evidence.record(connection, pieces)
        _log.info("examined", endpoint=paper.endpoint.name, domain=order.domain, score=mean)

    async def _pieces(
        self, paper: _Paper, scored: list[tuple[Item, Marked]], now: datetime
    ) -> list[Piece]:
        marker = self._hall.marker
        about = (paper.endpoint, paper.suite, now)
        pieces = [await marker.piece(item, each, about) for item, each in scored]
        return [
            replace(each, weight=each.weight * paper.share, run_id=paper.run_id) for each in pieces
        ]


def _scored(paper: _Paper, marked: list[tuple[Item, Marked]]) -> list[tuple[Item, Marked]]:
    """Return the scores; what the endpoint did not answer is worth nothing, unless that may be
    chance: where it hardly answered at all and has not failed so before."""
    scored = [(item, each) for item, each in marked if each.score is not None]
    if paper.borne and len(scored) < len(paper.tasks) * ENOUGH:
        return scored
    return scored + [(item, Marked(0.0)) for item, each in marked if each.missed]


def _problem(paper: _Paper, marked: list[Marked]) -> str:
    """Say how few answers there are, and why."""
    why = Counter(each.problem for each in marked if each.score is None)
    told = ", ".join(f"{count} x {problem}" for problem, count in why.most_common())
    scored = sum(each.score is not None for each in marked)
    return f"Only {scored} of {len(paper.tasks)} prompts had a score: {told}."


def _obstacle(suite: Suite | None, endpoint: Endpoint | None) -> str | None:
    if endpoint is None:
        return "The endpoint is not on the market."
    if suite is None:
        return "There is no suite for the domain any more."
    if not suite.is_for(endpoint.deployment.provider_id):
        return "The suite is another provider's."
    if form_of(endpoint) is None:
        return f"{NOT_EXAMINED[0].upper()}{NOT_EXAMINED[1:]}."
    return None if suite.items else "The suite has no rows for an endpoint of this kind."

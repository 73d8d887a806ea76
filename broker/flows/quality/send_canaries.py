"""Puts prompts of suites to endpoints among their other traffic, now and then.

Where an endpoint has had a call lately, about `per_hour` canaries an hour go there, at moments that
chance chooses, in the shape of any other call; so who is paid to do well at examinations must do
well at everything. What they come to is evidence, and stands beside what traffic says.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from random import Random
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.answers.suites import Suite
from broker.flows.calls.ask_endpoint import form_of
from broker.flows.quality.examine import Hall
from broker.flows.quality.mark_answers import Task
from broker.store.away import DATABASE_AWAY, told
from broker.store.quality import canaries, evidence, examinations, suites
from broker.store.quality.canaries import Perch

LOOK_S: Final = 60.0
BUSY: Final = timedelta(minutes=10)
"""An endpoint that had no call for so long would tell a canary by its being alone."""
TEMPERATURES: Final = (None, None, 0.0, 0.7, 1.0)
"""As callers choose them; None leaves it to the endpoint."""
SURE_SHARE: Final = 0.3
"""Of canaries that ask how sure the endpoint is."""

_log = structlog.get_logger(__name__)


class Aviary:
    """Sends canaries, for one worker process."""

    def __init__(self, hall: Hall, per_hour: float, random: Random) -> None:
        self._hall = hall
        self._share = min(per_hour * LOOK_S / 3_600.0, 1.0)
        self._random = random
        self._flights: set[asyncio.Task[None]] = set()
        self._books = asyncio.Semaphore(1)

    async def look(self, within_s: float = LOOK_S) -> int:
        """Draw who gets a canary within the next while; return how many there will be."""
        hall, draw = self._hall, self._random.random
        if self._share <= 0.0:
            return 0
        async with self._books, hall.engine.connect() as connection:
            perches = await canaries.perches(connection, hall.clock() - BUSY)
        chosen = [each for each in perches if draw() < self._share]
        for perch in chosen:
            flight = asyncio.create_task(self._fly(perch, draw() * within_s))
            self._flights.add(flight)
            flight.add_done_callback(self._flights.discard)
        return len(chosen)

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        while self._flights:
            await asyncio.wait(self._flights)

    async def _fly(self, perch: Perch, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        try:
            await self._send(perch)
        except DATABASE_AWAY as error:
            _log.warning("canary_lost", reason=told(error))
        except Exception:  # one must not go unseen
            _log.exception("canary_failed")

    async def _send(self, perch: Perch) -> None:
        hall = self._hall
        async with self._books, hall.engine.begin() as connection:
            found = await self._prepare(connection, perch)
        if found is None:
            return
        suite, task = found
        # Some callers want probabilities and some do not, so neither tells a canary.
        wanted = self._random.choice(TEMPERATURES), self._random.random() < SURE_SHARE
        marked = await hall.marker.mark(task, wanted[0], logprobs=wanted[1])
        now = hall.clock()
        pieces = []
        if marked.score is not None:
            about = (task.endpoint, suite, now)
            pieces = [await hall.marker.piece(task.item, marked, about)]
        async with self._books, hall.engine.begin() as connection:
            await canaries.record(connection, task.call_id, perch, marked.score, now)
            await evidence.record(connection, pieces)

    async def _prepare(
        self, connection: AsyncConnection, perch: Perch
    ) -> tuple[Suite, Task] | None:
        """Choose a prompt, and note the calls; None where endpoint or suite have gone."""
        suite = await suites.find(connection, perch.domain)
        listed = await self._hall.endpoints(connection)
        endpoint = next((each for each in listed if each.id == perch.endpoint_id), None)
        if suite is None or endpoint is None or not suite.is_for(endpoint.deployment.provider_id):
            return None
        form = form_of(endpoint)
        suite = suite if form is None else suite.part(form)
        if form is None or not suite.items:
            return None
        item = self._random.choice(suite.split()[1])
        task = Task.of(item, endpoint, {each.name: each for each in listed})
        for asked, call_id in task.calls:
            now = self._hall.clock()
            await examinations.note_test_calls(connection, asked.id, [call_id], now)
        return suite, task

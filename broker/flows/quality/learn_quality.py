"""Learns how well endpoints answer, beside the calls: reads new evidence, and teaches the market.

Every process does so by itself, from the same evidence.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.catalog import Endpoint
from broker.core.quality.domains import Recogniser
from broker.core.quality.evidence import Piece
from broker.core.quality.groups import Groups
from broker.core.quality.learning import Beside, learn, read_catalog, told_apart
from broker.core.quality.lengths import AnswerLengths, Batch
from broker.core.quality.lessons import Lessons
from broker.core.quality.notebook import PIECES_MAX, Notebook
from broker.encoding.encoder import Encoder
from broker.flows.process.outage import Outage
from broker.flows.quality.write_evidence import Diary
from broker.store.away import DATABASE_AWAY
from broker.store.calls.answer_lengths import read_lengths
from broker.store.money.plans import id_at
from broker.store.quality import evidence

EVERY_S: Final = 3.0
"""So often it is asked what is new."""
RESTS: Final = 20.0
"""After learning it rests so many times as long as that took: one twentieth of a core at most."""
LENGTHS_EVERY_S: Final = 30.0
"""So often what is learned of answers' lengths alone is taught."""
FADES_EVERY_S: Final = 600.0
"""So often all is weighed anew where nothing is."""
READ_WITHIN_S: Final = 10.0
FIRST_READ_WITHIN_S: Final = 120.0
"""What a process begins with: given up too early, it would be asked for again and again."""
WRITTEN_WITHIN_S: Final = 2.0
_LATE: Final = timedelta(seconds=30)
"""So long after its time a piece of evidence may come to light."""
_LENGTHS_SINCE: Final = timedelta(hours=6)
_PAGE: Final = 1_000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What is learned for: as it is now."""

    endpoints: tuple[Endpoint, ...]
    recogniser: Recogniser | None
    encoder: Encoder | None
    groups: Groups | None = None
    """The newest that were made; of former domains while those of new ones are being made."""

    def is_like(self, other: Scene | None) -> bool:
        """True while nothing in it has changed."""
        return (
            other is not None
            and self.endpoints is other.endpoints
            and not self.differs_in_domains(other)
        )

    def differs_in_domains(self, other: Scene) -> bool:
        """True where another recogniser or other groups were learned."""
        return self.recogniser is not other.recogniser or self.groups is not other.groups


class QualitySchool:
    """Remembers what was read, and learns anew when there is something new."""

    def __init__(
        self, engine: AsyncEngine, clock: Callable[[], datetime], heard: deque[Piece]
    ) -> None:
        """`heard` is what this process has seen itself, to be written down."""
        self._engine = engine
        self._diary = Diary(engine, heard)
        self._clock = clock
        self._notes = Notebook()
        self._lengths = AnswerLengths()
        self._since: UUID | None = None
        """Where to read on; None before anything was read."""
        self._known: set[UUID] = set()
        """What was read of what comes after that."""
        self._lengths_since = id_at(clock() - _LENGTHS_SINCE)
        self._learned_for: Scene | None = None
        self._learned: Lessons | None = None
        self._new = self._longer = False
        self._due_at = self._rests_until = self._lengths_due_at = clock()
        self._woken = asyncio.Event()
        self._outage = Outage(
            "evidence_away",
            "evidence_back",
            "'auto' goes by what was learned before, until PostgreSQL reads and writes again",
        )

    def wake(self) -> None:
        """Be told that the scene is another."""
        self._woken.set()

    async def run(
        self, scene: Callable[[], Scene], teach: Callable[[Scene, Lessons], None]
    ) -> None:
        """Learn on and on until cancelled; `teach` gets all that is known, each time anew."""
        while True:
            try:
                now = scene()
                learned = await self.learn(now)
                if learned is not None:
                    teach(now, learned)
            except DATABASE_AWAY as error:
                self._outage.met(error, did="read")
            except Exception:  # what is wrong with one piece must not end all learning
                _log.exception("nothing was learned")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    await self._woken.wait()
            self._woken.clear()

    async def close(self) -> None:
        """Write down what is not, before the process ends."""
        await self._write_down()

    async def learn(self, scene: Scene) -> Lessons | None:
        """Read what is new and return what is known; None where that has not changed, and where no
        domain is taught, for then nobody asks."""
        is_written = await self._write_down()
        first = self._since is None
        async with asyncio.timeout(FIRST_READ_WITHIN_S if first else READ_WITHIN_S):
            new, batches = await self._read_new()
        if is_written:
            self._outage.over()
        self._lengths.take(batches)
        self._new, self._longer = self._new or bool(new), self._longer or bool(batches)
        now = self._clock()
        if scene.recogniser is None or not scene.endpoints:
            return None
        if self._is_due(scene, now):
            self._new = self._longer = False
            self._learned_for = scene
            self._learned, took_s = await asyncio.to_thread(self._learn, scene, now)
            self._rests_until = self._clock() + timedelta(seconds=RESTS * took_s)
            self._due_at = now + timedelta(seconds=FADES_EVERY_S)
        elif self._learned is not None and self._is_longer(scene, now):
            self._longer = False
            places, size = self._learned.places, self._learned.table.shape[1]
            table = self._lengths.table(places, size)
            self._learned = replace(self._learned, tokens_out=table)
        else:
            return None
        self._lengths_due_at = now + timedelta(seconds=LENGTHS_EVERY_S)
        return self._learned

    def _is_due(self, scene: Scene, now: datetime) -> bool:
        """True when all is to be learned anew. Until then a changed catalog goes by what it was,
        but nothing goes by domains that are no more."""
        before = self._learned_for
        if before is None or scene.differs_in_domains(before) or now >= self._due_at:
            return True
        return (self._new or not scene.is_like(before)) and now >= self._rests_until

    def _is_longer(self, scene: Scene, now: datetime) -> bool:
        """True when only how long answers are is to be learned."""
        due = self._longer and now >= self._lengths_due_at
        return due and scene.is_like(self._learned_for)

    async def _write_down(self) -> bool:
        """Write what was heard; where that fails, False, it stays, and others' is read."""
        try:
            async with asyncio.timeout(WRITTEN_WITHIN_S):
                await self._diary.write()
        except DATABASE_AWAY as error:
            self._outage.met(error, did="write")
            return False
        return True

    async def _read_new(self) -> tuple[int, list[Batch]]:
        count, begun = 0, self._clock()
        async with self._engine.connect() as connection:
            if self._since is None:
                newest = await evidence.newest_id(connection)
                async for page in evidence.newest_of_each(connection, PIECES_MAX):
                    count += sum(self._take(each) for each in page)
                self._since = min(newest, id_at(begun - _LATE))
            cursor = self._since
            while ids := await evidence.ids_since(connection, cursor, _PAGE):
                cursor = ids[-1]
                unknown = [each for each in ids if each not in self._known]
                found = await evidence.find(connection, unknown) if unknown else []
                count += sum(self._take(each) for each in found)
            self._since = since = max(self._since, min(cursor, id_at(begun - _LATE)))
            self._known = {each for each in self._known if each > since}
            batches, self._lengths_since = await read_lengths(connection, self._lengths_since)
        return count, batches

    def _take(self, recorded: evidence.Recorded) -> bool:
        """Write a piece down; False for one that was read before."""
        if recorded.id in self._known:
            return False
        self._known.add(recorded.id)
        self._notes.take(recorded.piece)
        return True

    def _learn(self, scene: Scene, now: datetime) -> tuple[Lessons, float]:
        """Return all that is known, and how many seconds of a core that took."""
        begun_s = time.thread_time()
        recogniser, groups, encoder = scene.recogniser, scene.groups, scene.encoder
        taught = recogniser.names if recogniser else ()
        names = told_apart(taught, self._notes.domains, scene.endpoints)
        size = max((each.number for each in scene.endpoints), default=-1) + 1
        catalog = read_catalog(scene.endpoints, names, size)
        numbers = {each.id: each.number for each in scene.endpoints}
        known = (groups, encoder.name) if groups and encoder else None
        heard = self._notes.read(numbers, catalog.places, known)
        beside = Beside(self._lengths.table(catalog.places, size), recogniser, groups)
        learned = learn(heard, catalog, beside, now.timestamp())
        return learned, time.thread_time() - begun_s

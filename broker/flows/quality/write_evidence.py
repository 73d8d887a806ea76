"""Writes down what a process has seen itself, each piece once, however often that is tried."""

from __future__ import annotations

from collections import deque
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from broker.core.quality.evidence import Piece
from broker.store.away import is_database_away
from broker.store.quality import evidence
from broker.store.quality.evidence import Recorded

BATCH: Final = 500
"""Pieces written at once, and lost at once where one of them is refused."""

_log = structlog.get_logger(__name__)


class Diary:
    """Takes pieces out of a queue that others fill, and keeps them until they are written."""

    def __init__(self, engine: AsyncEngine, heard: deque[Piece]) -> None:
        self._engine = engine
        self._heard = heard
        self._batch: list[Recorded] = []
        self._unsure = False
        """True when the batch may be written although nobody said so."""

    async def write(self) -> None:
        """Write all that was heard; what the database refuses is dropped, for it always would.

        Raises what DATABASE_AWAY names where the database is away; then nothing is lost, and the
        next try goes on.
        """
        while self._batch or self._heard:
            if not self._batch:
                count = min(len(self._heard), BATCH)
                self._batch = [Recorded(uuid7(), self._heard.popleft()) for _ in range(count)]
            try:
                await self._write_batch()
            except DBAPIError as error:
                if is_database_away(error):
                    raise
                pieces = len(self._batch)
                _log.error(
                    "evidence was refused, and is dropped", pieces=pieces, reason=str(error.orig)
                )
            self._batch, self._unsure = [], False

    async def _write_batch(self) -> None:
        async with self._engine.begin() as connection:
            if self._unsure:
                ids = [each.id for each in self._batch]
                written = await evidence.among(connection, ids)
                left = [each.piece for each in self._batch if each.id not in written]
                # Ids of long ago would be found by nobody who reads on.
                self._batch = [Recorded(uuid7(), each) for each in left]
            self._unsure = True
            await evidence.write(connection, self._batch)

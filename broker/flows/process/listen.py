"""Hears of changes in the database for as long as the process runs, through every loss of it.

A revoked key must be dead everywhere within a second, also where the connection that would have
told of it hangs: as soon as it is not certain that every change is heard, keys are looked up four
times a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from broker.store import changes
from broker.store.away import DATABASE_AWAY, told

_log = structlog.get_logger(__name__)

CHECKED_EVERY_S: Final = 0.25
ANSWERS_WITHIN_S: Final = 1.0
CERTAIN_S: Final = 0.4
"""So long after an answered check has begun it is certain that nothing was missed."""
RETRIED_EVERY_S: Final = 1.0


class ChangeListener:
    """Calls `heard` with what has changed: each announcement, and everything after a silence."""

    def __init__(
        self,
        database_url: str,
        heard: Callable[[str], None],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database_url = database_url
        self._heard = heard
        self._now_s = now_s
        self._certain_until_s = float("-inf")
        self.listening = False
        """True while every change is heard; while it is False, whoever wants to know must look."""

    async def run(self) -> None:
        """Listen until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_while_uncertain())
            await self._listen()

    async def _listen(self) -> None:
        complained = False
        while True:
            try:
                listener = await changes.Listener.connect(self._database_url, self._heard)
            except DATABASE_AWAY as error:
                if not complained:
                    _log.warning("changes are not heard of", reason=told(error))
                complained = True
                await asyncio.sleep(RETRIED_EVERY_S)
                continue
            complained = False
            await self._attend(listener)

    async def _attend(self, listener: changes.Listener) -> None:
        self.listening = True
        try:
            for what in (changes.KEYS, changes.CATALOG):
                self._heard(what)  # it may have changed while nobody listened
            asked_s = self._now_s()
            while await listener.alive(ANSWERS_WITHIN_S):
                # The server sends what was announced before it answers.
                self._certain_until_s = asked_s + CERTAIN_S
                await asyncio.sleep(CHECKED_EVERY_S)
                asked_s = self._now_s()
            _log.warning("the connection that hears of changes is lost")
        finally:
            self.listening = False
            listener.close()

    async def _look_while_uncertain(self) -> None:
        while True:
            await asyncio.sleep(CHECKED_EVERY_S)
            if self._now_s() > self._certain_until_s:
                self._heard(changes.KEYS)

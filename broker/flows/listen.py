"""Hears of changes in the database for as long as the process runs, through every loss of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from broker.store import changes
from broker.store.away import DATABASE_AWAY

_log = structlog.get_logger(__name__)

CHECKED_EVERY_S: Final = 1.0
ANSWERS_WITHIN_S: Final = 1.0


class ChangeListener:
    """Calls `heard` with what has changed: each announcement, and everything after a silence."""

    def __init__(self, database_url: str, heard: Callable[[str], None]) -> None:
        self._database_url = database_url
        self._heard = heard
        self.listening = False
        """True while every change is heard; while it is False, whoever wants to know must look."""

    async def run(self) -> None:
        """Listen until cancelled."""
        complained = False
        while True:
            try:
                listener = await changes.Listener.connect(self._database_url, self._heard)
            except DATABASE_AWAY as error:
                if not complained:
                    _log.warning("changes are not heard of", reason=str(error))
                complained = True
                await asyncio.sleep(CHECKED_EVERY_S)
                continue
            complained = False
            await self._attend(listener)

    async def _attend(self, listener: changes.Listener) -> None:
        self.listening = True
        try:
            for what in (changes.KEYS, changes.CATALOG):
                self._heard(what)  # it may have changed while nobody listened
            while await listener.alive(ANSWERS_WITHIN_S):  # noqa: ASYNC110 - it awaits a death
                await asyncio.sleep(CHECKED_EVERY_S)
            _log.warning("the connection that hears of changes is lost")
        finally:
            self.listening = False
            listener.close()

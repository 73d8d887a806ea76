"""Where background work is done: what its tasks share, and the one way from Celery into async."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeVar

import asyncpg
from celery.schedules import crontab
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.settings import Settings
from broker.store.database import create_engine, create_pool

Answer = TypeVar("Answer")

QUICK: Final = "broker"
SLOW: Final = "broker.slow"
"""Queues; each has a worker process, so that what takes minutes keeps nothing waiting."""


@dataclass(slots=True)
class Room:
    """What the tasks of one worker process share; `alarms` counts what its checks found.

    `kept` is for what a kind of work keeps from one time to the next, under its own name.
    """

    settings: Settings
    engine: AsyncEngine
    pool: asyncpg.Pool
    alarms: int = 0
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """One kind of work: `name` is the Celery task's, `schedule` None where it is only asked for.

    An order that waits longer than `expires_s` lapses: the next one does its work. Where Valkey
    breaks, orders are lost, or come again an hour later (Celery's visibility timeout), beside those
    that are due by then: so `work` finds out what there is to do, and does it once, however many do
    it at the same time. What may take more than a few seconds goes into the queue `SLOW`.
    """

    name: str
    work: Callable[[Room], Awaitable[None]]
    schedule: timedelta | crontab | None = None
    expires_s: int = 3_600
    queue: str = QUICK


class Bridge:
    """The one way from Celery into async code: one event loop for each worker process.

    It has a thread of its own, so that what a task leaves under way goes on between the tasks,
    which Celery runs one after the other. Everything is made at the first task, which is after the
    fork.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._room: Room | None = None

    def run(self, work: Callable[[Room], Awaitable[Answer]]) -> Answer:
        """Run `work` to its end and return its answer."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="jobs", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(self._work(work), self._loop).result()

    async def _work(self, work: Callable[[Room], Awaitable[Answer]]) -> Answer:
        if self._room is None:
            url = self._settings.database_url
            self._room = Room(
                self._settings, create_engine(url, connections_max=2), await create_pool(url)
            )
        return await work(self._room)

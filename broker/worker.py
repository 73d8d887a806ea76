"""The Celery app: `celery --app broker.worker worker --beat` runs what can wait.

The app is built from the environment when Celery first asks this module for `app`. Tasks are plain
functions that hand a coroutine to the one `Bridge` of their process; those of other packages come
from the entry points of the group `broker.tasks`, each a function `register(app, bridge)`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from typing import Any, Final, TypeVar

import asyncpg
import structlog
from celery import Celery
from celery.schedules import crontab
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.flows.check import check
from broker.flows.seal import AGE_MIN, seal
from broker.flows.sweep import release_orphans, sweep_expired
from broker.settings import Settings
from broker.store import maintenance
from broker.store.database import create_engine, create_pool

TASKS_GROUP: Final = "broker.tasks"

Answer = TypeVar("Answer")

_log = structlog.get_logger()


@dataclass(slots=True)
class Room:
    """What the tasks of one worker process share; `alarms` counts what its checks found."""

    settings: Settings
    engine: AsyncEngine
    pool: asyncpg.Pool
    alarms: int = 0


class Bridge:
    """The one way from Celery into async code: one event loop for each worker process.

    Celery runs the tasks of a process one after the other, so the loop needs no thread of its own.
    Everything is made at the first task, which is after the fork.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._runner: asyncio.Runner | None = None
        self._room: Room | None = None

    def run(self, work: Callable[[Room], Awaitable[Answer]]) -> Answer:
        """Run `work` to its end and return its answer."""
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(self._work(work))

    async def _work(self, work: Callable[[Room], Awaitable[Answer]]) -> Answer:
        if self._room is None:
            url = self._settings.database_url
            self._room = Room(
                self._settings, create_engine(url, connections_max=2), await create_pool(url)
            )
        return await work(self._room)


def create_app(settings: Settings) -> Celery:
    """Return the app with all tasks and their schedule; connects to nothing yet."""
    app = Celery("broker", broker=settings.valkey_url)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        task_ignore_result=True,
        task_default_queue="broker",
        timezone="UTC",
        enable_utc=True,
        broker_connection_retry_on_startup=True,
        worker_redirect_stdouts=False,
        beat_schedule=_schedule(),
    )
    bridge = Bridge(settings)
    for name, work in TASKS.items():
        _add_task(app, bridge, name, work)
    for entry in entry_points(group=TASKS_GROUP):
        entry.load()(app, bridge)
    return app


async def sweep(room: Room) -> None:
    """Give back what is held for calls that nobody will settle."""
    await sweep_expired(room.pool, datetime.now(UTC))
    await release_orphans(room.pool)


async def check_invariants(room: Room) -> None:
    """Fold the open period."""
    await _check(room, replay=False)


async def replay(room: Room) -> None:
    """Fold everything, which proves the seals."""
    await _check(room, replay=True)


async def make_partitions(room: Room) -> None:
    """Make the partitions of this month and the two after it."""
    async with room.engine.begin() as connection:
        await maintenance.ensure_partitions(connection, datetime.now(UTC).date())


async def seal_balances(room: Room) -> None:
    """Seal as of the last full hour that is old enough."""
    now = datetime.now(UTC)
    await seal(room.engine, (now - AGE_MIN).replace(minute=0, second=0, microsecond=0), now)


async def clean_up(room: Room) -> None:
    """Delete expired idempotency keys, login links and sessions."""
    async with room.engine.begin() as connection:
        await maintenance.delete_expired(connection, datetime.now(UTC))


TASKS: Final[dict[str, Callable[[Room], Awaitable[None]]]] = {
    "broker.sweep": sweep,
    "broker.check_invariants": check_invariants,
    "broker.replay": replay,
    "broker.make_partitions": make_partitions,
    "broker.seal_balances": seal_balances,
    "broker.clean_up": clean_up,
}


async def _check(room: Room, *, replay: bool) -> None:
    alarms = await check(room.engine, replay=replay)
    room.alarms += len(alarms)
    for alarm in alarms:
        row = {name: str(value) for name, value in alarm.row.items()}
        _log.error("ledger_alarm", view=alarm.view, row=row, so_far=room.alarms)


def _schedule() -> dict[str, Any]:
    """An order that waits longer than its interval lapses: the next one does its work."""
    orders: dict[str, tuple[Any, int]] = {
        "broker.sweep": (timedelta(seconds=5), 5),
        "broker.check_invariants": (timedelta(minutes=1), 60),
        "broker.clean_up": (crontab(minute="17"), 3_600),
        "broker.make_partitions": (crontab(minute="10", hour="0"), 86_400),
        "broker.seal_balances": (crontab(minute="20", hour="1"), 86_400),
        "broker.replay": (crontab(minute="30", hour="3"), 86_400),
    }
    return {
        name: {"task": name, "schedule": schedule, "options": {"expires": expires_s}}
        for name, (schedule, expires_s) in orders.items()
    }


def _add_task(
    app: Celery, bridge: Bridge, name: str, work: Callable[[Room], Awaitable[None]]
) -> None:
    def task() -> None:
        bridge.run(work)

    task.__doc__ = work.__doc__
    app.task(task, name=name)


_built: dict[str, Celery] = {}


def __getattr__(name: str) -> Celery:
    """Build `app` when Celery first asks for it, so that importing this module does nothing."""
    if name != "app":
        raise AttributeError(name)
    if name not in _built:
        _built[name] = create_app(Settings.from_env())
    return _built[name]

"""The Celery app, whose workers run what can wait (`broker worker`).

The app is built from the environment when Celery first asks this module for `app`. Tasks are plain
functions that hand a coroutine to the one `Bridge` of their process; those of other packages come
from the entry points of the group `broker.tasks`, each a function `register(app, bridge)`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Final

from celery import Celery

from broker.jobs import (
    answers,
    audit,
    disputes,
    examinations,
    payouts,
    plans,
    receipts,
    telling,
    upkeep,
    webhooks,
)
from broker.jobs.quieting import quiet
from broker.jobs.room import QUICK, Bridge, Job
from broker.logs import configure_logging
from broker.settings import Settings
from broker.store.revision import require_newest_at

TASKS_GROUP: Final = "broker.tasks"

JOBS: Final[tuple[Job, ...]] = (
    *upkeep.JOBS,
    *disputes.JOBS,
    *telling.JOBS,
    *answers.JOBS,
    *audit.JOBS,
    *payouts.JOBS,
    *plans.JOBS,
    *webhooks.JOBS,
    *receipts.JOBS,
    *examinations.JOBS,
)


def create_app(settings: Settings) -> Celery:
    """Return the app with all tasks and their schedule; connects to nothing yet."""
    quiet()
    app = Celery("broker", broker=settings.valkey_url)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        task_ignore_result=True,
        task_default_queue=QUICK,
        task_routes={job.name: {"queue": job.queue} for job in JOBS},
        worker_pool="broker.jobs.pool:Pool",
        worker_consumer="broker.jobs.reconnecting:Reconnecting",
        timezone="UTC",
        enable_utc=True,
        broker_connection_retry_on_startup=True,
        # Else a Valkey that takes no writes for a while, for its disk is full say, ends the worker.
        broker_channel_error_retry=True,
        worker_redirect_stdouts=False,
        beat_schedule={
            job.name: {
                "task": job.name,
                "schedule": job.schedule,
                "options": {"expires": job.expires_s},
            }
            for job in JOBS
            if job.schedule is not None
        },
    )
    bridge = Bridge(settings)
    for job in JOBS:
        _add_task(app, bridge, job)
    for entry in entry_points(group=TASKS_GROUP):
        entry.load()(app, bridge)
    return app


def _add_task(app: Celery, bridge: Bridge, job: Job) -> None:
    def task() -> None:
        bridge.run(job.work)

    task.__doc__ = job.work.__doc__
    # Not shared: else each app of this process would register the tasks of every other.
    app.task(task, name=job.name, shared=False)


_built: dict[str, Celery] = {}


def __getattr__(name: str) -> Celery:
    """Build `app` when Celery first asks for it, so that importing this module does nothing."""
    if name != "app":
        raise AttributeError(name)
    if name not in _built:
        configure_logging()  # of Celery's own command, such as its schedule's
        _built[name] = create_app(Settings.from_env())
    return _built[name]


def main(options: Sequence[str], *, quiet: bool) -> None:
    """Run Celery's worker with its options, without its banner if `quiet`; ends the process.

    By its own command it would import this module from the folder where it is started. Raises
    SchemaUnfit where the database is of another version.
    """
    # With its command line comes much that who only sends has no use for.
    from celery.bin.base import CLIContext
    from celery.bin.worker import worker

    configure_logging()
    settings = Settings.from_env()
    asyncio.run(require_newest_at(settings.database_url))
    told = CLIContext(create_app(settings), no_color=True, workdir=None, quiet=quiet)
    worker.main(list(options), prog_name="broker worker", obj=told)

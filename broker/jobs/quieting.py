"""Says in one line what Celery tells with a page of traceback: that PostgreSQL or Valkey is away.

Each task that is due meets it, each second for as long as it lasts; whatever else a task or the
schedule fails for is told in full. That it is over is told by the first order that is given or
taken, and by the first success of a task that had failed.
"""

from __future__ import annotations

import logging
import traceback
from types import FrameType
from typing import Any, Final

from billiard.exceptions import RestartFreqExceeded
from celery import signals
from celery.beat import SchedulingError
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from broker.flows.process.outage import Outage
from broker.store.away import is_database_away

_TASKS: Final = "celery.app.trace"
_LOGGERS: Final = (
    _TASKS,
    "celery.beat",
    "celery.worker.consumer.consumer",
    "kombu.transport.redis",
)
_VALKEY: Final = (SchedulingError, OperationalError, RedisError, RestartFreqExceeded)


class Quieting(logging.Filter):
    """Lets through what is none of that, and tells the rest now and then."""

    def __init__(self) -> None:
        super().__init__()
        self._database = Outage(
            "jobs_wait_for_the_database",
            "jobs_go_on",
            "what is due is done once PostgreSQL is back: see to it, and restart no worker",
            of="postgresql",
        )
        self._failed: set[str] = set()
        """Names of the tasks that the database was away for; others may not have asked it."""
        self._valkey = Outage(
            "jobs_wait_for_valkey",
            "jobs_go_on",
            "no job is ordered until Valkey is back: see to it, and restart no worker",
            of="valkey",
        )

    def filter(self, record: logging.LogRecord) -> bool:
        error = _error_of(record)
        if error is None:
            return True
        # Whoever reads orders, or gives them, asks nobody but Valkey.
        if isinstance(error, _VALKEY) or (record.name != _TASKS and isinstance(error, OSError)):
            self._valkey.met(error)
        elif is_database_away(error) and _is_of_a_database(error):
            job = getattr(record, "data", {}).get("name")
            if job is not None:
                self._failed.add(job)
            self._database.met(error, job=job)
        else:
            return True
        return False

    def ordered(self, **_: Any) -> None:
        """Be told by Celery that an order was given or taken: Valkey is there."""
        self._valkey.over()

    def succeeded(self, sender: Any, **_: Any) -> None:
        """Be told by Celery that a task has done its work."""
        if sender.name in self._failed:
            self._failed.clear()
            self._database.over()


def _error_of(record: logging.LogRecord) -> BaseException | None:
    """Return what was raised: told as such, or among what the message is made of."""
    if record.exc_info and record.exc_info[1] is not None:
        return record.exc_info[1]
    parts = record.args if isinstance(record.args, tuple) else ()
    return next((each for each in parts if isinstance(each, BaseException)), None)


def _is_of_a_database(error: BaseException) -> bool:
    """Tell what the driver met from a task's own trouble with a file or with somebody else."""
    if not isinstance(error, OSError):
        return True
    met: BaseException | None = error
    while met is not None:  # of a time-out, what it put an end to
        if any(_is_the_drivers(frame) for frame, _ in traceback.walk_tb(met.__traceback__)):
            return True
        met = met.__cause__ or met.__context__
    return False


def _is_the_drivers(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "asyncpg"


def quiet() -> None:
    """Have Celery's own loggers filtered, in this process and those that it forks, and its signals
    heard; once."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    if not any(isinstance(each, Quieting) for each in loggers[0].filters):
        quieting = Quieting()
        for logger in loggers:
            logger.addFilter(quieting)
        for signal in (signals.after_task_publish, signals.task_received):
            signal.connect(quieting.ordered, weak=False)
        signals.task_success.connect(quieting.succeeded, weak=False)

"""The processes of a worker, each of which is heard out when the worker is told to stop.

Celery then gives up what it has handed to a process and heard nothing of yet, and stops listening.
The process does the work nevertheless, and stays until its answer is read: for half a minute, or
for ever where the answer is more than a pipe holds.
"""

from __future__ import annotations

from multiprocessing.connection import wait
from typing import Final

from billiard.pool import TERMINATE
from celery.concurrency.asynpool import AsynPool, ResultHandler
from celery.concurrency.prefork import TaskPool

_LOOK_S: Final = 0.1
"""How soon the end of a process is seen that has nothing to say."""


class _Attentive(ResultHandler):  # type: ignore[misc]  # Celery ships no types
    """Reads what the processes answer until there are none left."""

    def on_stop_not_started(self) -> None:
        """Hear all out, once each has been told to end after what it has begun."""
        super().on_stop_not_started()
        processes = dict(self.fileno_to_outq)
        while processes and self._state != TERMINATE:
            broken: set[int] = set()
            for each in wait(list(processes), _LOOK_S):
                self._flush_outqueue(each, broken.add, processes, self.on_state_change)
            processes = {
                each: process
                for each, process in processes.items()
                if each not in broken and process.is_alive()
            }


class _Processes(AsynPool):  # type: ignore[misc]  # Celery ships no types
    ResultHandler = _Attentive


class Pool(TaskPool):  # type: ignore[misc]  # Celery ships no types
    """Celery's pool of processes, but for how it ends."""

    Pool = _Processes

"""Runs cells on Celery workers, on as many hosts as there are, and hands over what comes back.

The workers are those of a broker (`broker worker --simulations`). They need no file of this host
and must have the same code: a worker with other code refuses its cells.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from celery import Celery, group

from broker.errors import BrokerError
from simulations.cell import Cell, Outcome
from simulations.studies.folder import fingerprint
from simulations.studies.parcel import pack, unpack

CELL_TASK = "simulations.cell"
QUEUE = "simulations"
DOORS = "broker.doors"
"""Entry points by which a broker lends what other rooms may not import."""
EXPIRES_S = 86_400
LOOK_S = 0.2


class CellFailed(BrokerError):
    """A worker could not run a cell; the message is its own."""

    status = 500
    code = "cell_failed"


class NoWorker(BrokerError):
    """No Celery worker takes simulations."""

    status = 503
    code = "no_worker"


class CeleryRunner:
    """Runs cells as a group of tasks; what is not begun when it is left is called off."""

    def __init__(self, app: Celery, told: Callable[[float], None] | None = None) -> None:
        self._app = app
        self._told = told
        self._before = 0

    def run(self, cells: Sequence[Cell]) -> Iterator[Outcome]:
        """Yield outcomes as they come, in any order. Raises CellFailed."""
        if not cells:
            return
        code = fingerprint()
        tasks = [
            self._app.signature(CELL_TASK, (pack(cell), code), queue=QUEUE, expires=EXPIRES_S)
            for cell in cells
        ]
        waiting = list(group(tasks, app=self._app).apply_async().results)
        try:
            while waiting:
                ended = [each for each in waiting if each.ready()]
                for each in ended:
                    yield _outcome(each.get(propagate=False))
                    each.forget()
                    waiting.remove(each)
                self._tell(len(cells) - len(waiting))
                if not ended:
                    time.sleep(LOOK_S)
            self._before += len(cells)
        finally:
            for each in waiting:
                each.revoke()

    def _tell(self, done: int) -> None:
        if self._told is not None:
            self._told(self._before + done)


def _outcome(told: object) -> Outcome:
    if isinstance(told, Exception):
        raise CellFailed(f"A worker could not run a cell: {told}.")
    return unpack(str(told), Outcome)


def connected_runner(state: Path, told: Callable[[float], None] | None = None) -> CeleryRunner:
    """Return a runner on the workers of the broker of a state folder, or of VALKEY_URL.

    Raises NoWorker when none answers.
    """
    (door,) = entry_points(group=DOORS, name="celery")
    app: Celery = door.load()(state)
    queues = app.control.inspect(timeout=2.0).active_queues() or {}
    takes = [each for each in queues.values() if any(queue["name"] == QUEUE for queue in each)]
    if not takes:
        raise NoWorker(
            "No worker takes simulations: start some with 'broker worker --simulations'."
        )
    return CeleryRunner(app, told)

"""Runs cells on Celery workers, on as many hosts as there are, and hands over what comes back.

The workers are those of a broker (`broker worker --simulations`). They need no file of this host
and must have the same code: a worker with other code refuses its cells.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from celery import Celery
from celery.exceptions import OperationalError
from celery.result import AsyncResult

from broker.errors import BrokerError
from simulations.cell import Cell, CellStopped, Outcome
from simulations.doors import open_door
from simulations.studies.folder import fingerprint
from simulations.studies.lease import Clock, Lease
from simulations.studies.local import Told, unheard
from simulations.studies.parcel import CALL_OFF, CELL_TASK, QUEUE, pack, unpack

EXPIRES_S = 86_400
LOOK_S = 0.2
ASKED_S = (1.0, 4.0)
"""How long workers have to say what they take; asked again, for who is busy answers late."""


class CellFailed(BrokerError):
    """A worker could not run a cell; the message is its own."""

    status = 500
    code = "cell_failed"


class NoWorker(BrokerError):
    """No Celery worker takes simulations."""

    status = 503
    code = "no_worker"


class CeleryRunner:
    """Runs cells as tasks; what is not done when it is left is called off, or by itself ends soon
    after who is killed."""

    def __init__(self, app: Celery, told: Told = unheard, clock: Clock = time.monotonic) -> None:
        self._app = app
        self._clock = clock
        self._told = told
        self._before = 0

    def run(self, cells: Sequence[Cell]) -> Iterator[Outcome]:
        """Yield outcomes as they come, in any order. Raises CellFailed, CellsGivenUp, and
        CellStopped where `told` says so."""
        if not cells:
            return
        waiting: list[AsyncResult] = []
        try:
            with Lease(self._app.backend, self._clock) as lease:
                yield from self._run(cells, waiting, lease)
        finally:
            if waiting:
                # A cell under way may take hours, and others wait for its worker. Where nobody can
                # be told, it ends with the lease.
                ids = [each.id for each in waiting]
                with suppress(OperationalError):
                    self._app.control.revoke(ids, terminate=True, signal=CALL_OFF)
                # Each that goes says so to the store, which is there yet.
                waiting.clear()

    def _run(
        self, cells: Sequence[Cell], waiting: list[AsyncResult], lease: Lease
    ) -> Iterator[Outcome]:
        code = fingerprint()
        for cell in cells:
            lease.require()
            waiting.append(self._send(pack(cell), code, lease.name))
        while waiting:
            lease.require()
            ended = self._ended(waiting)
            for each in ended:
                yield _outcome(each.get(propagate=False))
                waiting.remove(each)
                with suppress(*self._app.backend.connection_errors):  # it expires by itself
                    each.forget()
            if not self._told(self._before + len(cells) - len(waiting)):
                raise CellStopped
            if not ended:
                time.sleep(LOOK_S)
        self._before += len(cells)

    def _ended(self, waiting: Sequence[AsyncResult]) -> list[AsyncResult]:
        """Return who has ended; nobody while the store cannot be asked, for as long as the lease
        lasts."""
        try:
            return [each for each in waiting if each.ready()]
        except self._app.backend.connection_errors:
            return []

    def _send(self, *told: str) -> AsyncResult:
        return self._app.send_task(CELL_TASK, told, queue=QUEUE, expires=EXPIRES_S)


def _outcome(told: object) -> Outcome:
    if isinstance(told, Exception):
        raise CellFailed(f"A worker could not run a cell: {told}.")
    return unpack(str(told), Outcome)


@contextmanager
def connected_runner(state: Path, told: Told = unheard) -> Iterator[CeleryRunner]:
    """A runner on the workers of the broker of a state folder, or of VALKEY_URL.

    Raises NoWorker when none answers.
    """
    app: Celery = open_door("celery")(state)
    if not any(_takes(app, within_s) for within_s in ASKED_S):
        raise NoWorker(
            "No worker takes simulations: start some with 'broker worker --simulations'."
        )
    yield CeleryRunner(app, told)


def _takes(app: Celery, within_s: float) -> bool:
    """True when a worker says so soon that it takes simulations."""
    try:
        told = app.control.inspect(timeout=within_s).active_queues() or {}
    except OperationalError as error:
        told = str(error).rstrip(".")
        raise NoWorker(f"The workers cannot be reached: {told}.") from None
    return any(queue["name"] == QUEUE for each in told.values() for queue in each)

"""Worker processes that run cells side by side, each one cell at a time.

Each is started anew and is sent a cell when it says that it can take one. What it shares with who
started it is a pipe and a piece of memory: no lock, so nobody can die with one in his hand.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from traceback import format_exc
from typing import Any, Self

from broker.errors import BrokerError
from simulations.cell import Cell, CellStopped, Outcome, Told, run_cell
from simulations.studies.stopping import blocked

GRACE_S = 3.0
"""How long a cell may take to notice that it is to end."""


class WorkerLost(BrokerError):
    """A worker process died, perhaps for want of memory; its exit code is in the message."""

    status = 500
    code = "worker_lost"


@dataclass(slots=True, eq=False)
class _Worker:
    number: int
    process: BaseProcess
    pipe: Connection
    is_ready: bool = False
    place: int | None = None
    """Of the cell that it runs; None where it runs none."""


class Crew:
    """Runs one list of cells after another, each in its order, while the block that it opens runs.

    Of `workers` processes as many are started as there are cells for, and each of them once.
    """

    def __init__(self, workers: int) -> None:
        self._context = get_context("spawn")
        self._shares = self._context.RawArray(ctypes.c_double, workers)
        self._stop = self._context.RawValue(ctypes.c_bool, False)
        self._cells: Sequence[Cell] = ()
        self._sent = self._back = 0
        self._workers: list[_Worker] = []
        resource_tracker.ensure_running()  # which lets signals through again when it starts

    def begin(self, cells: Sequence[Cell]) -> None:
        """Take on cells; those before must all have their outcomes."""
        assert not self.is_busy, "one list at a time"
        self._cells, self._sent, self._back = cells, 0, 0
        for each in self._workers:
            if each.is_ready:
                self._send_next(each)
        with blocked():
            for number in range(len(self._workers), min(len(self._shares), len(cells))):
                self._workers.append(self._started(number))

    def _started(self, number: int) -> _Worker:
        here, there = self._context.Pipe()
        arguments = (there, self._shares, number, self._stop)
        process = self._context.Process(target=_work, args=arguments)
        process.start()
        there.close()
        return _Worker(number, process, here)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.value = True
        for each in self._workers:
            each.process.kill()
        for each in self._workers:
            each.process.join()
            each.pipe.close()

    @property
    def is_busy(self) -> bool:
        """True until every cell has an outcome."""
        return self._back < len(self._cells)

    @property
    def done(self) -> float:
        """How many cells' worth of work has been done of this list, parts counted."""
        working = [each.number for each in self._workers if each.place is not None]
        return self._back + sum(self._shares[number] for number in working)

    def outcomes(self, within_s: float) -> Iterator[Outcome]:
        """Yield the outcomes that come so soon. Raises WorkerLost, and what a cell raises."""
        by_pipe = {each.pipe: each for each in self._workers}
        for pipe in wait(list(by_pipe), within_s):
            worker = by_pipe[pipe]  # type: ignore[index]
            told = _told_by(worker)
            self._back += worker.place is not None
            worker.is_ready, worker.place = True, None
            self._send_next(worker)
            if isinstance(told, Exception):
                raise told
            if told is not None:
                yield told

    def _send_next(self, worker: _Worker) -> None:
        if self._sent < len(self._cells) and not self._stop.value:
            worker.is_ready, worker.place = False, self._sent
            self._sent += 1
            self._shares[worker.number] = 0.0
            worker.pipe.send(self._cells[worker.place])

    def stop(self) -> Iterator[Outcome]:
        """Have all cells end; yield the outcomes of those that were just done."""
        self._stop.value = True
        until_s = time.monotonic() + GRACE_S
        while (left_s := until_s - time.monotonic()) > 0.0 and self._is_working:
            with suppress(CellStopped):
                yield from self.outcomes(left_s)

    @property
    def _is_working(self) -> bool:
        return any(each.place is not None for each in self._workers)


def _told_by(worker: _Worker) -> Outcome | Exception | None:
    """What a worker says: that it is ready, or what came of its cell. Raises WorkerLost."""
    try:
        told: Outcome | Exception | None = worker.pipe.recv()
    except EOFError:
        worker.process.join()
        raise WorkerLost(
            f"A worker process ended with {worker.process.exitcode}; the cells that are done are "
            "kept."
        ) from None
    return told


def _work(pipe: Connection, shares: Any, number: int, stop: Any) -> None:
    """Run cells until there is nobody to send any; tell at `number` which share of one is done."""
    parent = parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    pipe.send(None)
    while True:
        try:
            cell = pipe.recv()
        except EOFError:
            return

        def told(share: float) -> bool:
            shares[number] = share
            return not stop.value

        pipe.send(_outcome(cell, told))


def _outcome(cell: Cell, told: Told) -> Outcome | Exception:
    try:
        return run_cell(cell, told)
    except Exception as error:
        if not isinstance(error, BrokerError | CellStopped):
            error.add_note(format_exc())  # a traceback does not travel
        return error


def _end_with(parent: BaseProcess) -> None:
    """Leave nobody behind where the first process was killed, which could stop nobody any more."""
    parent.join()
    os._exit(1)

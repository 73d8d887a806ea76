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
from simulations.cell import Cell, CellStopped, Outcome, run_cell
from simulations.studies.stopping import blocked

GRACE_S = 3.0
"""How long a cell may take to notice that it is to end."""


class WorkerLost(BrokerError):
    """A worker process died, perhaps for want of memory; its exit code is in the message."""

    status = 500
    code = "worker_lost"


@dataclass(slots=True, eq=False)
class _Worker:
    process: BaseProcess
    pipe: Connection
    place: int | None = None
    """Of the cell that it runs; None where it runs none, or cannot yet."""


class Crew:
    """Runs cells in their order while the block that it opens runs."""

    def __init__(self, workers: int, cells: Sequence[Cell]) -> None:
        context = get_context("spawn")
        self._cells = cells
        self._shares = context.RawArray(ctypes.c_double, len(cells))
        self._stop = context.RawValue(ctypes.c_bool, False)
        self._sent = self._back = 0
        self._workers: list[_Worker] = []
        resource_tracker.ensure_running()  # which lets signals through again when it starts
        with blocked():
            for _ in range(workers):
                here, there = context.Pipe()
                arguments = (there, self._shares, self._stop)
                process = context.Process(target=_work, args=arguments)
                process.start()
                there.close()
                self._workers.append(_Worker(process, here))

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
        """How many cells' worth of work has been done, parts counted."""
        return sum(self._shares)

    def outcomes(self, within_s: float) -> Iterator[Outcome]:
        """Yield the outcomes that come so soon. Raises WorkerLost, and what a cell raises."""
        by_pipe = {each.pipe: each for each in self._workers}
        for pipe in wait(list(by_pipe), within_s):
            worker = by_pipe[pipe]  # type: ignore[index]
            told = _told_by(worker)
            self._back += worker.place is not None
            self._send_next(worker)
            if isinstance(told, Exception):
                raise told
            if told is not None:
                yield told

    def _send_next(self, worker: _Worker) -> None:
        worker.place = None
        if self._sent < len(self._cells) and not self._stop.value:
            worker.place = self._sent
            self._sent += 1
            worker.pipe.send((worker.place, self._cells[worker.place]))

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


def _work(pipe: Connection, shares: Any, stop: Any) -> None:
    """Run cells until there is nobody to send any."""
    parent = parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    pipe.send(None)
    while True:
        try:
            place, cell = pipe.recv()
        except EOFError:
            return
        pipe.send(_outcome(place, cell, shares, stop))


def _outcome(place: int, cell: Cell, shares: Any, stop: Any) -> Outcome | Exception:
    def told(share: float) -> bool:
        shares[place] = share
        return not stop.value

    try:
        outcome = run_cell(cell, told)
    except Exception as error:
        if not isinstance(error, BrokerError | CellStopped):
            error.add_note(format_exc())  # a traceback does not travel
        return error
    shares[place] = 1.0
    return outcome


def _end_with(parent: BaseProcess) -> None:
    """Leave nobody behind where the first process was killed, which could stop nobody any more."""
    parent.join()
    os._exit(1)

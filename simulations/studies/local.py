"""Runs cells on the cores of this machine, and hands over each outcome as soon as it is there.

Each worker is a process of its own that is started anew, so it inherits nothing. A stop is told to
the cells under way, which end within a moment and leave no outcome.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import Any

from simulations.cell import Cell, CellStopped, Outcome, run_cell

POLL_S = 0.2
Told = Callable[[float], None]
"""Told now and then how many cells' worth of work has been done so far, parts counted."""


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalRunner:
    """Runs cells in `workers` processes; in this one where there is only one."""

    def __init__(self, workers: int | None = None, told: Told | None = None) -> None:
        self._workers = workers or cores()
        self._told: Told = told or _silent
        self._before = 0

    def run(self, cells: Sequence[Cell]) -> Iterator[Outcome]:
        """Yield outcomes as they come, in any order."""
        if not cells:
            return
        alone = self._workers == 1 or len(cells) == 1
        yield from self._here(cells) if alone else self._beside(cells)
        self._before += len(cells)

    def _here(self, cells: Sequence[Cell]) -> Iterator[Outcome]:
        for done, cell in enumerate(cells):

            def told(share: float, done: int = done) -> bool:
                self._told(self._before + done + share)
                return True

            yield run_cell(cell, told)
            self._told(self._before + done + 1)

    def _beside(self, cells: Sequence[Cell]) -> Iterator[Outcome]:
        context = get_context("spawn")
        shares = context.RawArray(ctypes.c_double, len(cells))
        stop = context.RawValue(ctypes.c_bool, False)
        workers = min(self._workers, len(cells))
        with ProcessPoolExecutor(workers, context, _begin, (shares, stop)) as pool:
            waiting: set[Future[Outcome]] = {
                pool.submit(_work, place, cell) for place, cell in enumerate(cells)
            }
            try:
                while waiting:
                    done, waiting = wait(waiting, POLL_S, FIRST_COMPLETED)
                    self._told(self._before + sum(shares))
                    for each in done:
                        yield each.result()
            finally:
                stop.value = True
                pool.shutdown(cancel_futures=True)


_shared: dict[str, Any] = {}
"""What a worker process shares with who started it."""


def _begin(shares: Any, stop: Any) -> None:
    # Ctrl-C goes to the whole group of processes; the first of them says what is to be done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _shared.update(shares=shares, stop=stop)
    parent = parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    """Leave nobody behind where the first process was killed, which could stop nobody any more."""
    parent.join()
    os._exit(1)


def _work(place: int, cell: Cell) -> Outcome:
    shares, stop = _shared["shares"], _shared["stop"]

    def told(share: float) -> bool:
        shares[place] = share
        return not stop.value

    if stop.value:
        raise CellStopped
    outcome = run_cell(cell, told)
    shares[place] = 1.0
    return outcome


def _silent(_: float) -> None:
    return None

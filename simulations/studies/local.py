"""Runs cells on the cores of this machine, and hands over each outcome as soon as it is there.

Each worker is a process of its own that is started anew, so it inherits nothing. A stop is told to
the cells under way, which end within a moment and leave no outcome.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Self

from simulations.cell import Cell, CellStopped, Outcome, run_cell
from simulations.studies.crew import Crew

POLL_S = 0.2
Told = Callable[[float], bool]
"""Told now and then how many cells' worth of work has been done so far, parts counted; False stops
it."""


def unheard(_: float) -> bool:
    """Go on; nobody is told."""
    return True


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalRunner:
    """Runs cells in `workers` processes; in this one where there is only one.

    While the block that it opens runs, its processes wait for further cells: to start them takes
    as long as a short cell.
    """

    def __init__(self, workers: int | None = None, told: Told = unheard) -> None:
        self._workers = workers or cores()
        self._told = told
        self._before = 0
        self._crews: ExitStack | None = None
        self._crew: Crew | None = None

    def __enter__(self) -> Self:
        self._crews = ExitStack()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._crews is not None
        self._crews.close()
        self._crews = self._crew = None

    def run(self, cells: Sequence[Cell]) -> Iterator[Outcome]:
        """Yield outcomes as they come, in any order. Raises CellStopped where `told` says so, and
        what a cell raises."""
        if not cells:
            return
        if self._workers == 1 or len(cells) == 1:
            yield from self._here(cells)
        elif self._crews is not None:
            self._crew = self._crew or self._crews.enter_context(Crew(self._workers))
            yield from self._beside(cells, self._crew)
        else:
            with Crew(self._workers) as crew:
                yield from self._beside(cells, crew)
        self._before += len(cells)

    def _here(self, cells: Sequence[Cell]) -> Iterator[Outcome]:
        for done, cell in enumerate(cells):

            def told(share: float, done: int = done) -> bool:
                return self._told(self._before + done + share)

            if not told(0.0):
                raise CellStopped
            yield run_cell(cell, told)

    def _beside(self, cells: Sequence[Cell], crew: Crew) -> Iterator[Outcome]:
        crew.begin(cells)
        while crew.is_busy:
            yield from crew.outcomes(POLL_S)
            if not self._told(self._before + crew.done):
                yield from crew.stop()
                raise CellStopped

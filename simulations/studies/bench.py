"""Runs cells through a runner and keeps each outcome; what is kept already is not run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from msgspec.structs import replace

from simulations.cell import Cell, Outcome
from simulations.studies.order import longest_first


class Runner(Protocol):
    """Runs cells somewhere."""

    def run(self, cells: Sequence[Cell]) -> Iterator[Outcome]:
        """Yield outcomes as they come, in any order."""
        ...


class Keeper(Protocol):
    """Keeps outcomes by the keys of their cells."""

    def find(self, key: str) -> Outcome | None:
        """Return what came of a cell, None where it has not been run."""
        ...

    def keep(self, outcome: Outcome) -> None:
        """Write an outcome down."""
        ...


class Bench:
    """Where cells are run. `heard` is told every outcome, `spared` of how many that were kept."""

    def __init__(
        self,
        runner: Runner,
        keeper: Keeper | None = None,
        heard: Callable[[Outcome], None] | None = None,
        spared: Callable[[int], None] | None = None,
    ) -> None:
        self._runner = runner
        self._keeper = keeper
        self._heard = heard
        self._spared = spared

    def run(self, cells: Sequence[Cell]) -> list[Outcome]:
        """Return the outcomes in the order of the cells. What ends it early loses nothing kept."""
        found: dict[str, Outcome] = {}
        missing: dict[str, Cell] = {}
        for cell in cells:
            kept = None if self._keeper is None else self._keeper.find(cell.key)
            if kept is None:
                missing.setdefault(cell.key, cell)
            elif cell.key not in found:
                # A cell of another study may have come out the same.
                mine = replace(kept, policy=cell.policy, point=cell.point)
                found[cell.key] = mine
                self._tell(mine)
        if self._spared is not None:
            self._spared(len(cells) - len(missing))
        for outcome in self._runner.run(longest_first(list(missing.values()))):
            if self._keeper is not None:
                self._keeper.keep(outcome)
            found[outcome.key] = outcome
            self._tell(outcome)
        return [found[cell.key] for cell in cells]

    def _tell(self, outcome: Outcome) -> None:
        if self._heard is not None:
            self._heard(outcome)

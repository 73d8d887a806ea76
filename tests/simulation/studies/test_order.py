"""Which cells are run first, and that nobody can tell by the outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from simulations.cell import Cell, Outcome
from simulations.files.load import parse
from simulations.studies.bench import Bench
from simulations.studies.local import LocalRunner
from simulations.studies.order import longest_first
from simulations.studies.plan import Axis, Plan, make_plan
from tests.simulation.studies.test_studies import TOML, timeless


def a_sweep() -> Plan:
    grid = (Axis("demand.scale", (0.5, 2.0, 1.0)),)
    return make_plan(parse(TOML, "tiny.toml"), ["posted", "shadow"], 2, grid=grid, static=False)


class Recording(LocalRunner):
    """Notes in which order it was given cells."""

    def __init__(self) -> None:
        super().__init__(1)
        self.given: list[Cell] = []

    def run(self, cells: Sequence[Cell]) -> Iterator[Outcome]:
        self.given += cells
        return super().run(cells)


def test_the_longest_are_run_first_and_those_alike_as_they_were_given() -> None:
    ordered = longest_first(a_sweep().cells())
    told = [(each.policy, dict(each.point)["demand.scale"], each.seed) for each in ordered]
    first, second = a_sweep().seeds
    assert told == [
        (policy, scale, seed)
        for policy in ("shadow", "posted")
        for scale in (2.0, 1.0, 0.5)
        for seed in (first, second)
    ]


def test_outcomes_are_those_of_any_other_order() -> None:
    cells, runner = a_sweep().cells()[:4], Recording()
    found = Bench(runner).run(cells)
    assert [each.key for each in runner.given] != [each.key for each in cells]
    assert [each.key for each in found] == [each.key for each in cells]
    plainly = {each.key: each for each in LocalRunner(1).run(cells)}
    assert timeless(found) == timeless([plainly[each.key] for each in cells])

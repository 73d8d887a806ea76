"""Carries a plan out: all cells, and at each point the search for the best static price."""

from __future__ import annotations

from collections.abc import Callable

from simulations.cell import Outcome
from simulations.studies.bench import Bench, Keeper, Runner
from simulations.studies.plan import Plan
from simulations.studies.results import Point, Results
from simulations.studies.tuning import Tuned, cells_of_tuning, tune


class Study:
    """One run of a plan. What is done when it is stopped is in `results`."""

    def __init__(
        self,
        plan: Plan,
        runner: Runner,
        keeper: Keeper | None = None,
        spared: Callable[[int], None] | None = None,
    ) -> None:
        self._plan = plan
        self._outcomes: list[Outcome] = []
        self._tuned: dict[Point, Tuned] = {}
        self._bench = Bench(runner, keeper, self._outcomes.append, spared)
        self._search = Bench(runner, keeper, None, spared)

    @property
    def results(self) -> Results:
        """What there is by now, in the plan's order, whoever was done first."""
        plan = self._plan
        points = {point: place for place, point in enumerate(plan.points)}
        policies = {policy: place for place, policy in enumerate(plan.policies)}

        def place(each: Outcome) -> tuple[int, int, int]:
            return points[each.point], policies[each.policy], each.seed

        return Results(plan, tuple(sorted(self._outcomes, key=place)), dict(self._tuned))

    def run(self) -> Results:
        """Run everything that is not kept. Raises what a cell raises, and CellStopped."""
        plan = self._plan
        self._bench.run(plan.cells())
        if plan.static:
            for point in plan.points:
                self._tuned[point] = tuned = tune(plan, point, self._search)
                self._bench.run(plan.static_cells(point, tuned.factor))
        return self.results


def size_of(plan: Plan) -> int:
    """Return how many cells a study runs at most, those of the searches too."""
    points = len(plan.points)
    return points * (
        len(plan.policies) * len(plan.seeds) + (cells_of_tuning() if plan.static else 0)
    )

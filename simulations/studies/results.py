"""What a study found: its outcomes by point, policy and seed, and what they say together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from simulations.cell import Outcome, Setting
from simulations.measured.series import Series, mean_series
from simulations.measured.statistics import Difference, Interval, compare, interval
from simulations.studies.plan import Plan
from simulations.studies.tuning import Tuned

Point = tuple[Setting, ...]


@dataclass(frozen=True)
class Results:
    """Of a plan; `outcomes` may be fewer than planned where the study was stopped."""

    plan: Plan
    outcomes: Sequence[Outcome]
    tuned: Mapping[Point, Tuned]

    @cached_property
    def _by_place(self) -> dict[tuple[Point, str, int], Outcome]:
        return {(each.point, each.policy, each.seed): each for each in self.outcomes}

    @property
    def is_whole(self) -> bool:
        """True when every cell has been run."""
        plan = self.plan
        return len(self._by_place) == len(plan.points) * len(plan.policies) * len(plan.seeds)

    @cached_property
    def policies(self) -> tuple[str, ...]:
        """Those of which there is an outcome, in the plan's order."""
        there = {each.policy for each in self.outcomes}
        return tuple(each for each in self.plan.policies if each in there)

    def of(self, policy: str, point: Point = ()) -> list[Outcome]:
        """The outcomes of a policy at a point, by seed."""
        places = ((point, policy, seed) for seed in self.plan.seeds)
        return [self._by_place[place] for place in places if place in self._by_place]

    def interval(self, measure: str, policy: str, point: Point = ()) -> Interval:
        """The mean of a measure over seeds, with its interval."""
        return interval([each.figure(measure) for each in self.of(policy, point)])

    def difference(self, measure: str, policies: tuple[str, str], point: Point = ()) -> Difference:
        """By how much the first policy is above the second, seed by seed."""
        columns = [
            [self._figure((point, policy, seed), measure) for seed in self.plan.seeds]
            for policy in policies
        ]
        return compare(*columns)

    def course(self, policy: str, point: Point = ()) -> Series | None:
        """The mean course over seeds; None without an outcome."""
        parts = [each.series for each in self.of(policy, point)]
        return mean_series(parts) if parts else None

    def _figure(self, place: tuple[Point, str, int], measure: str) -> float:
        outcome = self._by_place.get(place)
        return math.nan if outcome is None else outcome.figure(measure)

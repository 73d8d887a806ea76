"""A decision in stages: whom each may ask, when an answer is kept, and what all of it may cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from broker.core.decision import COST_ROW, Candidate, Decision
from pricing.money import PICOS_PER_NANO

Group = tuple[Candidate, ...]
"""Who may serve a stage, in the order in which they are tried."""


class Chain(Decision, frozen=True, eq=False):
    """A decision in stages, each of which may be asked and paid once."""

    by_place: tuple[int, ...] = ()
    keep_from: tuple[float | None, ...] = ()
    """From which chance on an answer is kept, by stage; None: by benefit."""
    second: Candidate | None = None
    """Who answers a second time, where that is a model of its own."""
    samples: bool = False
    """Each stage but the last may be asked twice."""

    @property
    def stages(self) -> tuple[int, ...]:
        """The stage of each place in the plan."""
        return self.by_place

    @property
    def groups(self) -> tuple[Group, ...]:
        """The candidates of each stage."""
        return tuple(
            tuple(one for one, stage in zip(self.plan, self.by_place, strict=True) if stage == at)
            for at in range(len(self.keep_from))
        )

    @property
    def hold_nanos(self) -> int:
        """The dearest of each stage, and what is asked beside all but the last."""
        ceilings = [each.ceiling_nanos for each in self.plan]
        second = 0 if self.second is None else self.second.ceiling_nanos
        return hold_of(ceilings, self.by_place, second, samples=self.samples)

    @property
    def answers_most(self) -> int:
        """How many attempts may be paid."""
        stages = len(self.keep_from)
        compares = self.samples or self.second is not None
        return stages + (stages - 1 if compares else 0)

    def stage_of(self, candidate: Candidate) -> int:
        """Return the stage that a candidate is asked in."""
        return self.by_place[self.plan.index(candidate)]

    def quality_and_cost(self, candidate: Candidate) -> tuple[float, float]:
        """Return a candidate's expected score, and its expected cost in nano-dollars."""
        place = np.flatnonzero(self.eligible == candidate.number)
        if not place.size:
            return 0.0, 0.0
        figures = self.rows[:, place[0]]
        return float(figures[1]), float(figures[COST_ROW]) / PICOS_PER_NANO


def hold_of(
    ceilings_nanos: Sequence[int], stages: Sequence[int], second_nanos: int = 0, *, samples: bool
) -> int:
    """Return the most that stages may cost: the dearest of each, and what is asked beside all but
    the last; `stages` are those of the ceilings."""
    dearest: dict[int, int] = {}
    for stage, ceiling in zip(stages, ceilings_nanos, strict=True):
        dearest[stage] = max(dearest.get(stage, 0), ceiling)
    before = [dearest[each] for each in sorted(dearest)[:-1]]
    beside = second_nanos * len(before) + (sum(before) if samples else 0)
    return sum(dearest.values()) + beside

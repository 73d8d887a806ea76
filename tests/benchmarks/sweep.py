"""How much sooner a sweep is done by two processes than by one.

    python -m tests.benchmarks.sweep [seeds]

A grid of markets of unequal size, each under two controllers, is swept by one worker and by two in
turn, ROUNDS times. `cells_per_s_1` and `cells_per_s_2` are cells over the wall time of the fastest
round, start-up included; `ratio` is the second over the first, and would be 2 at best.
`ratio_of_turns` is the median over rounds of neighbours, which suffers less where the machine is
shared. `cpu_ratio` is the processor time of one worker over that of two: 1 where nothing is done
twice, and no more can be gained on a machine with two free cores than 2 times that;
`runs_cpu_ratio` is the same of the runs alone, and `start_cpu_s` what each process takes besides.
`busy` is which share of the time until the last is done workers are at work, by their number, of
the processor times of the runs, and `busy_as_given` the same were the longest not run first. The
last line is one JSON object.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from heapq import heapreplace
from typing import NamedTuple

from simulations.cell import Cell
from simulations.files.load import load
from simulations.studies.local import LocalRunner
from simulations.studies.order import longest_first
from simulations.studies.plan import Axis, Plan, make_plan
from simulations.studies.study import Study

ROUNDS = 3
SEEDS = 4
SCALES = (0.5, 1.0, 2.0)
CREWS = (2, 4, 8)


class Lap(NamedTuple):
    """What one sweep took."""

    wall_s: float
    cpu_s: float
    """Of all its processes."""
    runs_s: dict[str, float]
    """Of its runs, by the keys of their cells."""


def plan(seeds: int) -> Plan:
    """The sweep that is measured."""
    settings = (("horizon_s", 300.0), ("warm_up_s", 60.0))
    grid = (Axis("demand.scale", SCALES),)
    return make_plan(
        load("steady"), ("excess", "posted"), seeds, settings=settings, grid=grid, static=False
    )


def sweep(what: Plan, workers: int) -> Lap:
    """Sweep once."""
    cpu_s, begun_s = _cpu_s(), time.perf_counter()
    with LocalRunner(workers) as runner:
        outcomes = Study(what, runner).run().outcomes
    wall_s, runs_s = time.perf_counter() - begun_s, {each.key: each.cpu_s for each in outcomes}
    return Lap(wall_s, _cpu_s() - cpu_s, runs_s)


def busy(cells: Sequence[Cell], took_s: Mapping[str, float], workers: int) -> float:
    """Return which share of the time workers are at work until the last is done, each of whom takes
    the next cell when he can."""
    free_s = [0.0] * workers
    for cell in cells:
        heapreplace(free_s, free_s[0] + took_s[cell.key])
    return math.fsum(took_s.values()) / (workers * max(free_s))


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    """Measure, print a line for each sweep and the JSON at the end."""
    what = plan(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS)
    ordered = what.cells()
    cells = len(ordered)
    laps: dict[int, list[Lap]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for workers, told in laps.items():
            told.append(sweep(what, workers))
            sys.stdout.write(
                f"{workers} at work: {cells} cells in {told[-1].wall_s:6.2f} s, "
                f"{told[-1].cpu_s:6.2f} s of processor time\n"
            )
    one, two = laps[1], laps[2]
    wall = {count: min(each.wall_s for each in told) for count, told in laps.items()}
    cpu = {count: min(each.cpu_s for each in told) for count, told in laps.items()}
    turns = [alone.wall_s / both.wall_s for alone, both in zip(one, two, strict=True)]
    runs = {count: min(math.fsum(x.runs_s.values()) for x in told) for count, told in laps.items()}
    took_s = {key: min(lap.runs_s[key] for lap in (*one, *two)) for key in one[0].runs_s}
    besides = [(both.cpu_s - math.fsum(both.runs_s.values())) / 2 for both in two]
    figures = {
        "cells_per_s_1": round(cells / wall[1], 2),
        "cells_per_s_2": round(cells / wall[2], 2),
        "ratio": round(wall[1] / wall[2], 2),
        "ratio_of_turns": round(statistics.median(turns), 2),
        "cpu_ratio": round(cpu[1] / cpu[2], 2),
        "runs_cpu_ratio": round(runs[1] / runs[2], 2),
        "start_cpu_s": round(min(besides), 2),
        "busy": {n: round(busy(longest_first(ordered), took_s, n), 3) for n in CREWS},
        "busy_as_given": {n: round(busy(ordered, took_s, n), 3) for n in CREWS},
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()

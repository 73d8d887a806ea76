"""How much sooner a sweep is done by two processes than by one.

    python -m tests.benchmarks.sweep [seeds]

A grid of markets of unequal size, each under two controllers, is swept by one worker and by two in
turn, ROUNDS times. `cells_per_s_1` and `cells_per_s_2` are cells over the wall time of the fastest
round, start-up included; `ratio` is the second over the first, and would be 2 at best.
`ratio_of_turns` is the median over rounds of neighbours, which suffers less where the machine is
shared. `cpu_ratio` is the processor time of one worker over that of two: 1 where nothing is done
twice, and no more can be gained on a machine with two free cores than 2 times that. The last line
is one JSON object.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from typing import NamedTuple

from simulations.files.load import load
from simulations.studies.local import LocalRunner
from simulations.studies.plan import Axis, Plan, make_plan
from simulations.studies.study import Study

ROUNDS = 3
SEEDS = 4
SCALES = (0.5, 1.0, 2.0)


class Lap(NamedTuple):
    """What one sweep took."""

    wall_s: float
    cpu_s: float
    """Of all its processes."""


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
        Study(what, runner).run()
    return Lap(time.perf_counter() - begun_s, _cpu_s() - cpu_s)


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    """Measure, print a line for each sweep and the JSON at the end."""
    what = plan(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS)
    cells = len(what.cells())
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
    figures = {
        "cells_per_s_1": round(cells / wall[1], 2),
        "cells_per_s_2": round(cells / wall[2], 2),
        "ratio": round(wall[1] / wall[2], 2),
        "ratio_of_turns": round(statistics.median(turns), 2),
        "cpu_ratio": round(cpu[1] / cpu[2], 2),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()

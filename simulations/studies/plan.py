"""What a study runs: a scenario under several policies, on each point of a grid, with many seeds.

    cells = points of the grid x policies x seeds

All policies of a point meet the same arrivals, seed by seed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from itertools import product
from math import prod

import msgspec
import numpy as np

from pricing.choice import CONTROLLERS
from simulations.cell import Cell, Setting
from simulations.files.load import ScenarioFileMalformed, ScenarioText
from simulations.files.overrides import LIST_SCALE, parse_value
from simulations.files.recorded import SETTINGS

BEST_STATIC = "best static"
"""The policy of posted prices that a search found best for the scenario."""
CELLS_MAX = 100_000
OWN = {
    "seed": "'seeds'",
    "controller": "the policies",
    "prices.controller": "the policies",
}
"""What a study goes through by itself, and by what it does."""
TUNING_SEEDS = (1_000_001, 1_000_002)
"""The static price is searched on seeds of its own, not on those by which it is judged."""


class Axis(msgspec.Struct, frozen=True):
    """A setting, and the values that it goes through."""

    name: str
    values: tuple[float | int | str | bool, ...]


class Plan(msgspec.Struct, frozen=True):
    """A whole study; plain, so that it can be kept and sent."""

    scenario: dict[str, object]
    policies: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: tuple[Setting, ...] = ()
    grid: tuple[Axis, ...] = ()
    static: bool = True
    """Also search for the best static price at each point."""
    text: str = ""
    """The scenario as it was written."""

    @property
    def name(self) -> str:
        """Of the scenario."""
        return str(self.scenario["name"])

    @property
    def label(self) -> str:
        """The name and a few letters that differ from plan to plan."""
        digest = hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()
        return f"{self.name}-{digest[:8]}"

    @property
    def points(self) -> list[tuple[Setting, ...]]:
        """The points of the grid, the last axis first to change; one empty point without a grid."""
        rows = product(*([(axis.name, value) for value in axis.values] for axis in self.grid))
        return [tuple(row) for row in rows]

    def cell(self, point: Sequence[Setting], policy: str, seed: int, *more: Setting) -> Cell:
        """One cell; `more` is set last."""
        controller = "posted" if policy == BEST_STATIC else policy
        settings = (*self.settings, ("controller", controller), *point, *more)
        return Cell(self.scenario, settings, seed, policy, tuple(point))

    def cells(self) -> list[Cell]:
        """All cells but those of the best static price, which is not known yet."""
        named = [each for each in self.policies if each != BEST_STATIC]
        order = product(self.points, self.seeds, named)
        return [self.cell(point, policy, seed) for point, seed, policy in order]

    def static_cells(self, point: Sequence[Setting], factor: float) -> list[Cell]:
        """The cells of the best static price at a point, once it is known."""
        scaled = (LIST_SCALE, factor)
        return [self.cell(point, BEST_STATIC, seed, scaled) for seed in self.seeds]


def make_plan(
    written: ScenarioText,
    policies: Sequence[str],
    seeds: int,
    *,
    settings: Sequence[Setting] = (),
    grid: Sequence[Axis] = (),
    static: bool = True,
) -> Plan:
    """Plan a study, and build each of its points once so that nothing malformed is begun.

    No policy at all stands for the scenario's own; a value that an axis has twice is run once.
    Recorded demand is read here and nowhere else. Raises ScenarioFileMalformed.
    """
    of_files = [each for each in settings if each[0].endswith(SETTINGS)]
    settings = [each for each in settings if each not in of_files]
    written = written.changed(of_files).read()
    first = written.build(settings)
    wanted = list(dict.fromkeys(policies)) or [first.prices.controller]
    for each in wanted:
        if each not in CONTROLLERS:
            raise ScenarioFileMalformed(
                f"There is no controller '{each}'; there are {', '.join(CONTROLLERS)}."
            )
    if seeds < 1:
        raise ScenarioFileMalformed("A study has at least one seed.")
    grid = tuple(_axes(grid))
    size = prod(len(each.values) for each in grid) * len(wanted) * seeds
    if size > CELLS_MAX:
        raise ScenarioFileMalformed(f"{size} cells are more than {CELLS_MAX}.")
    plan = Plan(
        scenario=written.plain,
        policies=(*wanted, BEST_STATIC) if static else tuple(wanted),
        seeds=tuple(range(first.seed, first.seed + seeds)),
        settings=tuple(settings),
        grid=grid,
        static=static,
        text="\n".join((written.text, *(f"# {name} = {value}" for name, value in of_files))),
    )
    for point, policy in product(plan.points, wanted):
        # With the file's own text, so that an error names its line.
        written.build(plan.cell(point, policy, 0).settings)
    return plan


def _axes(grid: Sequence[Axis]) -> Iterator[Axis]:
    """Each axis with each of its values once. Raises ScenarioFileMalformed."""
    seen = set[str]()
    for axis in grid:
        if axis.name in OWN:
            raise ScenarioFileMalformed(
                f"'{axis.name}' is no axis of a grid: {OWN[axis.name]} of a study go through it."
            )
        if axis.name in seen:
            raise ScenarioFileMalformed(f"'{axis.name}' is an axis twice: give all values at once.")
        if not axis.values:
            raise ScenarioFileMalformed(f"'{axis.name}' is an axis without values.")
        seen.add(axis.name)
        yield Axis(axis.name, tuple(dict.fromkeys(axis.values)))


def parse_axis(text: str) -> Axis:
    """Return what `--grid` asks for: NAME=a,b,c or NAME=FROM:TO:COUNT, evenly, or with `:log`
    behind it by a constant factor. Raises ScenarioFileMalformed."""
    name, equals, told = text.partition("=")
    if not equals or not name or not told:
        raise ScenarioFileMalformed(f"'{text}' is not written NAME=a,b,c or NAME=FROM:TO:COUNT.")
    return read_axis(name, told)


def read_axis(name: str, told: str, values_max: int = CELLS_MAX) -> Axis:
    """Return the axis of this name whose values are told as `parse_axis` takes them. Raises
    ScenarioFileMalformed, before a value is made where a range has more than `values_max`."""
    parts = told.split(":")
    if len(parts) > 1:
        return Axis(name, tuple(_spread(f"{name}={told}", parts, values_max)))
    values = [parse_value(each.strip()) for each in told.split(",")]
    return Axis(name, tuple(each for each in values if isinstance(each, float | int | str)))


def _spread(text: str, parts: list[str], values_max: int) -> Iterator[float]:
    try:
        begin, end, count = float(parts[0]), float(parts[1]), int(parts[2])
    except (ValueError, IndexError):
        raise ScenarioFileMalformed(f"'{text}' is not written NAME=FROM:TO:COUNT.") from None
    if not math.isfinite(end - begin):
        raise ScenarioFileMalformed(f"'{text}': FROM and TO are finite numbers.")
    if count > values_max:
        raise ScenarioFileMalformed(f"'{text}': {count} values are more than {values_max}.")
    by_factor = parts[3:] == ["log"]
    if by_factor and not begin * end > 0.0:
        raise ScenarioFileMalformed(f"'{text}': with :log, FROM and TO are both above 0.")
    if count < 2 or (parts[3:] and not by_factor):
        raise ScenarioFileMalformed(f"'{text}' is not written NAME=FROM:TO:COUNT or so with :log.")
    spread = np.geomspace(begin, end, count) if by_factor else np.linspace(begin, end, count)
    # Twelve digits, or 0.1 steps would be shown with the noise of floats.
    return (float(f"{each:.12g}") for each in spread)

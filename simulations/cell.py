"""One cell of a study: a scenario with some values set, and a seed; and what came of it.

Both are plain enough to be sent to other processes and hosts, and to be kept in a file. A cell is
its own name: the same cell has the same key everywhere, and its outcome the same numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from simulations.files.load import ScenarioText
from simulations.files.overrides import LIST_SCALE
from simulations.fluid.yardstick import Yardstick, yardstick
from simulations.market import run
from simulations.measured.figures import ProviderFigures, figures, provider_figures
from simulations.measured.record import Code, Run
from simulations.measured.series import Series, series_of
from simulations.scenario import Scenario

Setting = tuple[str, Any]
_PRICES = (LIST_SCALE, "controller", "prices.")
"""Settings that begin so change prices alone."""
Told = Callable[[float], bool]
"""Told which share of the cell is done; False stops it."""


class CellStopped(Exception):
    """A cell was stopped before its end and has no outcome."""


class Cell(msgspec.Struct, frozen=True, eq=False):
    """What is to be run."""

    plain: dict[str, Any]
    """The scenario as its file has it."""
    settings: tuple[Setting, ...]
    """Set in this order."""
    seed: int
    policy: str
    """What the study calls the prices of this cell."""
    point: tuple[Setting, ...] = ()
    """Where on the grid of a sweep it stands; part of `settings` already."""

    @property
    def key(self) -> str:
        """The same for all cells that have the same outcome."""
        content = msgspec.json.encode((self.plain, self.settings, self.seed), order="deterministic")
        return hashlib.sha256(content).hexdigest()[:32]

    @property
    def text(self) -> ScenarioText:
        """The scenario, to be built."""
        name = str(self.plain.get("name", ""))
        return ScenarioText(name, name, "", self.plain, None)


class EndpointFigures(msgspec.Struct, frozen=True):
    """What one endpoint did in the time that counts; NaN is None."""

    name: str
    served: int
    load: float | None
    utilisation: float | None
    price_sigma: float | None
    reversals_per_h: float | None


class Outcome(msgspec.Struct, frozen=True, eq=False):
    """What came of a cell. Everything but `cpu_s` is the same at every run of it."""

    key: str
    policy: str
    point: tuple[Setting, ...]
    seed: int
    figures: dict[str, float | None]
    """By measure; None where there was nothing to measure."""
    codes: dict[str, int]
    """Calls by how they ended."""
    providers: tuple[ProviderFigures, ...]
    endpoints: tuple[EndpointFigures, ...]
    series: Series
    incidents: tuple[str, ...]
    arrived: int
    cpu_s: float

    def figure(self, measure: str) -> float:
        """A measure, NaN where there is none."""
        value = self.figures.get(measure)
        return math.nan if value is None else value


def run_cell(cell: Cell, told: Told | None = None) -> Outcome:
    """Run a cell to its end. Raises ScenarioFileMalformed, and CellStopped where `told` says so."""
    scenario = cell.text.build(cell.settings)
    as_written, best = world_of(cell)
    done = run(scenario, cell.seed, progress=_progress(scenario, told))
    if done.ended_s < scenario.horizon_s:
        raise CellStopped
    return Outcome(
        key=cell.key,
        policy=cell.policy,
        point=cell.point,
        seed=cell.seed,
        figures={
            name: value if math.isfinite(value) else None
            for name, value in figures(done, as_written, best).items()
        },
        codes={code.name.lower(): done.totals.count(code) for code in Code},
        providers=provider_figures(done, as_written),
        endpoints=_endpoints(done),
        series=series_of(done, as_written),
        incidents=done.incidents,
        arrived=done.arrived,
        cpu_s=done.cpu_s,
    )


@lru_cache(maxsize=8)
def _world(written: bytes) -> tuple[Scenario, Yardstick]:
    """The scenario but for its prices, and the most that can be made of it; kept, for the cells of
    a study differ in prices and seeds more than in anything else."""
    plain, settings = msgspec.json.decode(written)
    name = str(plain.get("name", ""))
    scenario = ScenarioText(name, name, "", plain, None).build([tuple(each) for each in settings])
    return scenario, yardstick(scenario)


def world_of(cell: Cell) -> tuple[Scenario, Yardstick]:
    """The cell's scenario with the list prices of its file, over which all prices are told; and
    its yardstick. Raises ScenarioFileMalformed, EquilibriumUnsolved."""
    settings = [each for each in cell.settings if not each[0].startswith(_PRICES)]
    return _world(msgspec.json.encode((cell.plain, settings)))


def _progress(scenario: Scenario, told: Told | None) -> Callable[[float, int], bool] | None:
    if told is None:
        return None
    return lambda gone_s, _: told(gone_s / scenario.horizon_s)


def _endpoints(done: Run) -> tuple[EndpointFigures, ...]:
    def known(values: Any, place: int) -> float | None:
        value = float(values[place])
        return value if math.isfinite(value) else None

    served = done.totals.calls[:, :, Code.SERVED].sum(axis=0)
    sigma, reversals = np.asarray(done.moves.sigma), np.asarray(done.moves.reversals_per_h)
    return tuple(
        EndpointFigures(
            name=name,
            served=int(served[place]),
            load=known(done.mean_load, place),
            utilisation=known(done.mean_utilisation, place),
            price_sigma=known(sigma, place),
            reversals_per_h=known(reversals, place),
        )
        for place, name in enumerate(done.endpoint_names)
    )

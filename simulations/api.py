"""Simulations from Python: run them in a notebook, and get dataframes.

    from simulations.api import frames, simulate

    found = simulate("flash_crowd", ["excess", "posted"], seeds=3)
    frames(found)["summary"]

A script that is not a notebook calls `simulate` below `if __name__ == "__main__":`, for its worker
processes import it anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from broker.errors import BrokerError
from simulations.files.load import load
from simulations.report.write import write_report
from simulations.studies.local import LocalRunner
from simulations.studies.plan import Axis, make_plan
from simulations.studies.results import Results
from simulations.studies.study import Study
from simulations.tables import rows_of, write_tables

Value = float | int | str | bool
LIBRARIES = ("polars", "pandas")


class NoDataframes(BrokerError):
    """Neither polars nor pandas is installed."""

    status = 500
    code = "no_dataframes"


def simulate(
    scenario: str,
    controllers: Sequence[str] = (),
    seeds: int = 5,
    *,
    settings: Mapping[str, Value] | None = None,
    grid: Mapping[str, Sequence[Value]] | None = None,
    workers: int | None = None,
) -> Results:
    """Run a scenario, by name or by the path of its file, and return what was found.

    `settings` are values to set, such as {"controller.gain": 2}; with a `grid` each of its points
    is run. Without a grid the best static price is searched too. Raises ScenarioFileMalformed.
    """
    plan = make_plan(
        load(scenario),
        controllers,
        seeds,
        settings=tuple((settings or {}).items()),
        grid=[Axis(name, tuple(values)) for name, values in (grid or {}).items()],
        static=not grid,
    )
    with LocalRunner(workers) as runner:
        return Study(plan, runner).run()


def save(results: Results, folder: str | Path) -> Path:
    """Write report and tables into a folder; return the path of the report."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    write_tables(results, path)
    return write_report(results, path)


def frames(results: Results) -> dict[str, Any]:
    """Return all tables as dataframes of polars, or of pandas where only that is installed.

    The names are those of `simulations.tables`. Raises NoDataframes.
    """
    for library in LIBRARIES:
        if find_spec(library):
            make = import_module(library).DataFrame
            options = {"infer_schema_length": None} if library == "polars" else {}
            tables = rows_of(results).items()
            return {name: make(rows, **options) for name, rows in tables if rows}
    raise NoDataframes("Install polars or pandas to get dataframes.")

"""A study in a terminal: how far it is and how long it takes yet, then its summary and files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from textwrap import wrap

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from simulations.cell import CellStopped
from simulations.files.load import load, names
from simulations.measures import MEASURES
from simulations.report.scales import setting
from simulations.report.words import GLUE, best_of, pace, spread, titled, verdict
from simulations.report.write import write_report
from simulations.studies.bench import Runner
from simulations.studies.folder import StudyFolder
from simulations.studies.local import Told
from simulations.studies.plan import Plan
from simulations.studies.results import Results
from simulations.studies.stopping import Stop
from simulations.studies.study import Study, size_of
from simulations.tables import write_tables

SHOWN = (
    *("welfare_share", "welfare_usd_per_h", "consumer_surplus_usd_per_h"),
    *("provider_surplus_usd_per_h", "revenue_usd_per_h", "take_usd_per_h", "served_share"),
    *("full_share", "failed_share", "ttft_goodput_per_s", "tpot_goodput_per_s", "load"),
    *("excess_load", "price_level", "price_sigma"),
    *("reversals_per_h", "swings_per_h", "settling_s", "hhi", "jain"),
)

HEADER_WIDTH = 10
Hire = Callable[[Told], AbstractContextManager[Runner]]
"""Finds who runs cells while a block runs, and tells how far he is."""


def list_scenarios() -> None:
    """Print the scenarios that come with the project."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name in names():
        table.add_row(f"[bold]{name}[/bold]", load(name).build().description)
    Console().print(table)


def carry_out(plan: Plan, hire: Hire, out: Path, stop: Stop) -> bool:
    """Run a plan, tell how it goes, write report and tables; False when it was stopped before its
    end.

    What was done before stays done: the same plan goes on from there.
    """
    console = Console()
    folder = StudyFolder(out)
    before = len(folder)
    if before:
        console.print(f"{before} cells are kept in {out} and are not run again.")
    with _bar(console) as bar:
        gauge = _Gauge(bar, bar.add_task(plan.name, total=size_of(plan)), stop)
        with hire(gauge.under_way) as runner:
            study = Study(plan, runner, folder, gauge.spared)
            try:
                study.run()
            except (CellStopped, KeyboardInterrupt):
                bar.stop()
                console.print("Stopped. What is done is kept; the same command goes on from here.")
    results = study.results
    if results.outcomes:
        summarize(results, console)
        _write(results, out, console)
    return results.is_whole


def summarize(results: Results, console: Console) -> None:
    """Print what was found: for each point of a grid one line, without a grid a table."""
    if len(results.plan.points) == 1:
        _print_policies(results, console)
        for sentence in verdict(results, results.plan.points[0]):
            console.print(f"- {sentence}", highlight=False)
    else:
        _print_points(results, console)
        for sentence in pace(results, results.plan.points[0]):
            console.print(f"- {sentence}", highlight=False)


def _print_policies(results: Results, console: Console) -> None:
    point = results.plan.points[0]
    table = Table("", box=None, padding=(0, 1, 0, 0))
    for policy in results.policies:
        table.add_column(policy, no_wrap=True)
    for key in SHOWN:
        measure = MEASURES[key]
        found = {each: results.interval(key, each, point) for each in results.policies}
        best = best_of(key, found)
        cells = []
        for policy, each in found.items():
            told = spread(each, measure.unit).replace(GLUE, "")
            cells.append(f"[bold green]{told}[/]" if policy == best else told)
        table.add_row(titled(measure), *cells)
    console.print(table)


def _print_points(results: Results, console: Console) -> None:
    # The last part of a name is enough where the report has all of it.
    axes = [axis.name.rpartition(".")[2] for axis in results.plan.grid]
    shown = ("welfare_share", "revenue_usd_per_h", "load", "reversals_per_h")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for each in (*axes, "policy"):
        table.add_column(each, no_wrap=True)
    for each in shown:
        header = "\n".join(wrap(titled(MEASURES[each]), HEADER_WIDTH))
        table.add_column(header, justify="right", no_wrap=True)
    for point in results.plan.points:
        for policy in results.policies:
            if results.of(policy, point):
                told = [
                    spread(results.interval(each, policy, point), MEASURES[each].unit)
                    for each in shown
                ]
                table.add_row(*(setting(value) for _, value in point), policy, *told)
    console.print(table)


def _write(results: Results, out: Path, console: Console) -> None:
    page = write_report(results, out, " ".join(("broker", *sys.argv[1:])))
    tables = write_tables(results, out)
    kinds = sorted({each.suffix[1:].upper() for each in tables})
    console.print(f"\nReport: [bold]{page}[/bold]")
    console.print(f"Tables: {len(tables)} files beside it, {' and '.join(kinds)}.")


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TextColumn("runs"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        transient=True,
    )


class _Gauge:
    """Moves the bar: by cells that were kept, and by the work done on others, until a stop."""

    def __init__(self, bar: Progress, task: TaskID, stop: Stop) -> None:
        self._bar = bar
        self._task = task
        self._stop = stop
        self._spared = 0

    def spared(self, cells: int) -> None:
        self._spared += cells
        self._bar.update(self._task, advance=cells)

    def under_way(self, cells: float) -> bool:
        self._bar.update(self._task, completed=self._spared + cells)
        return not self._stop.asked

"""A whole small study: what is found, what is kept, and that it does not depend on who runs it."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import typer
from msgspec.structs import replace
from rich.console import Console
from typer.testing import CliRunner

from simulations.api import LIBRARIES, frames
from simulations.cell import Cell, Outcome, run_cell
from simulations.commands import simulate, sweep
from simulations.console import summarize
from simulations.files.load import ScenarioFileMalformed, parse
from simulations.measures import MEASURES
from simulations.report.words import verdict
from simulations.report.write import write_report
from simulations.studies.bench import Bench
from simulations.studies.folder import StudyFolder
from simulations.studies.local import LocalRunner
from simulations.studies.plan import BEST_STATIC, Axis, Plan, make_plan, parse_axis
from simulations.studies.results import Results
from simulations.studies.study import Study, size_of
from simulations.tables import write_tables
from tests.integration.simulations.tiny import TOML


def a_plan(**wanted: Any) -> Plan:
    given = {"static": False} | wanted
    return make_plan(parse(TOML, "tiny.toml"), ["excess", "posted"], 2, **given)


@lru_cache
def found() -> Results:
    return Study(a_plan(static=True), LocalRunner(1)).run()


def timeless(outcomes: Sequence[Outcome]) -> list[str]:
    return sorted(repr(replace(each, cpu_s=0.0)) for each in outcomes)


class Dying:
    """A runner whose process dies after some cells."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.ran: list[str] = []

    def run(self, cells: Sequence[Cell]) -> Iterator[Outcome]:
        for cell in cells:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            self.ran.append(cell.key)
            yield run_cell(cell)


def test_a_study_compares_its_policies_with_the_best_static_price() -> None:
    results = found()
    assert results.is_whole
    assert results.policies == ("excess", "posted", BEST_STATIC)
    (tuned,) = results.tuned.values()
    assert len(tuned.tried) >= 9
    assert tuned.factor == max(tuned.tried, key=lambda each: each[1])[0]
    assert size_of(results.plan) >= len(results.outcomes)


def test_of_a_study_without_calls_no_welfare_is_claimed() -> None:
    none = a_plan(static=True, settings=(("demand.scale", 0.0),))
    told = verdict(Study(none, LocalRunner(1)).run())
    assert told[0].startswith("No call came that is worth what it costs to serve")
    assert not any("best static price" in each or "seeds" in each for each in told)


def test_the_parts_of_welfare_add_up_in_every_run() -> None:
    parts = ("consumer_surplus_usd_per_h", "provider_surplus_usd_per_h", "take_usd_per_h")
    for each in found().outcomes:
        whole = each.figure("welfare_usd_per_h")
        assert sum(map(each.figure, parts)) == pytest.approx(whole, rel=1e-9)
        ended = each.codes
        assert sum(ended.values()) > 0
        shares = ("served_share", "refused_share", "failed_share")
        assert sum(map(each.figure, shares)) == pytest.approx(1.0)


def test_other_processes_find_the_same_numbers() -> None:
    cells = a_plan().cells()[:2]
    there = Bench(LocalRunner(2)).run(cells)
    assert timeless(there) == timeless(Bench(LocalRunner(1)).run(cells))


def test_tables_are_the_same_whoever_was_done_first(tmp_path: Path) -> None:
    class Backward(LocalRunner):
        def run(self, cells: Sequence[Cell]) -> Iterator[Outcome]:
            return super().run(cells[::-1])

    there, here = tmp_path / "there", tmp_path / "here"
    for runner, folder in ((Backward(1), there), (LocalRunner(1), here)):
        folder.mkdir()
        write_tables(Study(a_plan(), runner).run(), folder)
    for file in here.glob("*.csv"):
        assert (there / file.name).read_bytes() == file.read_bytes()


def test_a_study_that_died_goes_on_where_it_was(tmp_path: Path) -> None:
    cells = a_plan().cells()
    first = Dying(after=2)
    with pytest.raises(KeyboardInterrupt):
        Bench(first, StudyFolder(tmp_path)).run(cells)
    (file,) = tmp_path.glob("cells-*.jsonl")
    with file.open("ab") as out:
        out.write(b'{"key": "broken o')
    second = Dying(after=len(cells))
    folder = StudyFolder(tmp_path)
    outcomes = Bench(second, folder).run(cells)
    assert len(first.ran) == 2
    assert set(second.ran) == {each.key for each in cells} - set(first.ran)
    assert len(StudyFolder(tmp_path)) == len(cells)
    assert timeless(outcomes) == timeless(Bench(LocalRunner(1)).run(cells))


def test_what_was_done_before_a_stop_is_reported(tmp_path: Path) -> None:
    study = Study(a_plan(), Dying(after=3), StudyFolder(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        study.run()
    assert len(study.results.outcomes) == 3
    assert not study.results.is_whole
    assert "was stopped before its end" in write_report(study.results, tmp_path).read_text()


def test_the_report_fetches_nothing_and_has_every_measure(tmp_path: Path) -> None:
    page = write_report(found(), tmp_path).read_text()
    assert page.count("<svg") >= 8
    for word in ("src=", "href=", "@import", "url(", "fetch(", "http://", "https://"):
        assert word not in page.replace("http://www.w3.org/2000/svg", ""), word
    for measure in MEASURES.values():
        assert measure.meaning.replace("'", "&#39;") in page


def test_hostile_names_are_words_in_the_report(tmp_path: Path) -> None:
    hostile = TOML.replace('"acme"', '"<script>alert(1)</script>"').replace("tiny", "<b>tiny")
    plan = make_plan(parse(hostile, "hostile.toml"), ["posted"], 1, static=False)
    page = write_report(Study(plan, LocalRunner(1)).run(), tmp_path).read_text()
    assert "<script>alert" not in page
    assert "<b>tiny" not in page
    assert "&lt;script&gt;alert" in page


def test_tables_are_written_as_csv_with_every_measure(tmp_path: Path) -> None:
    write_tables(found(), tmp_path)
    with (tmp_path / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found().outcomes)
    assert set(MEASURES) < set(rows[0])
    names = {each.name for each in tmp_path.glob("*.csv")}
    wanted = {"summary", "paired", "providers", "endpoints", "refusals", "course", "tuning"}
    assert {f"{each}.csv" for each in wanted} <= names


def test_a_sweep_draws_a_map_of_its_grid(tmp_path: Path) -> None:
    grid = [parse_axis("controller.gain=0.5:2:2:log"), parse_axis("demand.scale=1,2")]
    plan = make_plan(parse(TOML, "tiny.toml"), ["excess"], 1, grid=grid, static=False)
    results = Study(plan, LocalRunner(1)).run()
    assert [dict(each) for each in plan.points][1] == {"controller.gain": 0.5, "demand.scale": 2}
    assert {each.point for each in results.outcomes} == set(plan.points)
    page = write_report(results, tmp_path).read_text()
    assert page.count('class="best"') >= 1
    assert "controller.gain" in page


def test_a_sweep_tells_people_its_settings_in_three_digits(tmp_path: Path) -> None:
    grid = [parse_axis("controller.gain=0.5,1.23456")]
    plan = make_plan(parse(TOML, "tiny.toml"), ["excess"], 1, grid=grid, static=False)
    results = Study(plan, LocalRunner(1)).run()
    page = write_report(results, tmp_path).read_text()
    shown = StringIO()
    summarize(results, Console(file=shown, width=120))
    for told in (page, shown.getvalue()):
        assert "1.23" in told
        assert "1.2345" not in told
    write_tables(results, tmp_path)
    assert "1.23456" in (tmp_path / "summary.csv").read_text(), "files have them in full"


def test_axes_are_spread_evenly_or_by_a_factor() -> None:
    assert parse_axis("a.b=0.5:2:4").values == (0.5, 1.0, 1.5, 2.0)
    assert parse_axis("a.b=1:100:3:log").values == (1.0, 10.0, 100.0)
    assert parse_axis("a=x,2,true").values == ("x", 2, True)


@pytest.mark.parametrize(
    "wrong",
    [
        *("a", "a=", "a=1:2", "a=1:2:x", "a=-1:1:3:log", "a=1:2:1"),
        *("a=1:inf:3", "a=nan:1:3", "a=1:2:1000000000000"),
    ],
)
def test_an_axis_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ScenarioFileMalformed):
        parse_axis(wrong)


def test_an_axis_by_a_factor_from_nothing_on_is_told_why_there_is_none() -> None:
    with pytest.raises(ScenarioFileMalformed, match="with :log, FROM and TO are both above 0"):
        parse_axis("a=0:2:3:log")


def test_a_sweep_on_workers_of_brokers_takes_no_number_of_processes() -> None:
    app = typer.Typer()
    app.command()(sweep)
    words = ["steady", "--grid", "controller.gain=1,2", "--distributed", "--workers", "3"]
    ended = CliRunner().invoke(app, words, env={"COLUMNS": "120"})
    assert (ended.exit_code, "--workers are processes here" in ended.output) == (2, True)


def test_who_asks_for_a_distributed_simulation_is_told_of_the_sweep() -> None:
    app = typer.Typer()
    app.command()(simulate)
    ended = CliRunner().invoke(app, ["steady", "--distributed"], env={"COLUMNS": "200"})
    assert (ended.exit_code, "'broker sweep' takes --distributed" in ended.output) == (2, True)


def test_a_value_that_an_axis_has_twice_is_run_once(tmp_path: Path) -> None:
    plan = a_plan(grid=[parse_axis("demand.scale=1,1,1")])
    assert [axis.values for axis in plan.grid] == [(1,)]
    write_report(Study(plan, LocalRunner(1)).run(), tmp_path, "broker sweep")
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        (["controller=pi,excess"], "the policies of a study go through it."),
        (["prices.controller=pi"], "the policies of a study go through it."),
        (["seed=1,2"], "'seeds' of a study go through it."),
        (["demand.scale=1", "demand.scale=2"], "is an axis twice"),
    ],
)
def test_what_a_study_goes_through_already_is_no_axis(grid: list[str], told: str) -> None:
    with pytest.raises(ScenarioFileMalformed, match=told):
        a_plan(grid=[parse_axis(each) for each in grid])


def test_an_axis_without_values_is_refused() -> None:
    with pytest.raises(ScenarioFileMalformed, match="without values"):
        a_plan(grid=[Axis("demand.scale", ())])


def test_dataframes_have_the_same_rows() -> None:
    if not any(map(find_spec, LIBRARIES)):
        pytest.skip("neither polars nor pandas is installed")
    tables = frames(found())
    assert len(tables["runs"]) == len(found().outcomes)
    assert list(tables["summary"].columns)[:2] == ["policy", "measure"]

"""Recorded demand: what is read from which kind of file, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simulations.demand import Steps, Trace
from simulations.files.load import ScenarioFileMalformed, ScenarioText, load, parse
from simulations.studies.plan import make_plan, parse_axis
from simulations.traffic.traces import TraceMalformed, read_calls, read_rates
from tests.unit.simulations.files.test_scenario_files import SMALL

AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:48.0000000,879,55
2023-11-16 18:15:49.0000000,12,0
"""
MOONCAKE = """\
{"timestamp": 1000, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}
{"timestamp": 3500, "input_length": 5, "output_length": 1, "hash_ids": []}
"""
OWN = """\
{"id": "0190", "created_at": "2026-01-05T10:00:00Z", "tokens_in": 10, "tokens_out": 20}
{"id": "0191", "created_at": "2026-01-05T10:00:02.5Z", "tokens_in": null, "tokens_out": 3}
"""
RATES = """\
pool,t_s,rate_rps,active_clients,rate_weighted_cv
a,0,2.0,20,1.5
b,0,9.0,20,3.0
a,600,0,0,0
a,1200,6.0,20,2.5
"""


def written(folder: Path, text: str, name: str = "trace.txt") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def playing(arrivals: str, folder: Path | None) -> ScenarioText:
    text = SMALL.replace('{ kind = "poisson", rate_per_s = 3.0 }', arrivals)
    return parse(text, "small.toml", folder)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (AZURE, [(0.0, 374, 44), (1.319, 879, 55), (4.315, 396, 109)]),
        (MOONCAKE, [(0.0, 6955, 52), (2.5, 5, 1)]),
        (OWN, [(0.0, 10, 20), (2.5, 1, 3)]),
    ],
)
def test_calls_are_read_by_arrival_without_those_that_were_not_served(
    tmp_path: Path, text: str, wanted: list[tuple[float, int, int]]
) -> None:
    read = read_calls(written(tmp_path, text))
    assert list(zip(read.arrival_s, read.tokens_in, read.tokens_out, strict=True)) == wanted


def test_a_part_of_a_trace_begins_anew(tmp_path: Path) -> None:
    read = read_calls(written(tmp_path, AZURE), (1.0, 4.0))
    assert read.arrival_s == (0.319,)


def test_rates_are_those_of_their_pool_and_gaps_in_the_record_are_no_silence(
    tmp_path: Path,
) -> None:
    read = read_rates(written(tmp_path, RATES), "a")
    assert read.from_s == (0.0, 600.0, 1200.0)
    assert read.rates_per_s == (2.0, 2.0, 6.0)
    assert read.cv == pytest.approx((2.0 * 1.5 + 6.0 * 2.5) / 8.0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b\n1,2\n", ":2: a call has one of these"),
        (AZURE.replace("374", "many"), ":2: 'many' is no number"),
        (AZURE.replace("2023-11-16 18:15:48", "yesterday"), ":4: 'yesterday"),
        (MOONCAKE + "{broken\n", ":3: is no JSON object"),
        (MOONCAKE.replace("6955", "-1"), ":1: '-1' is no number"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "has no call"),
    ],
)
def test_what_is_no_trace_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(TraceMalformed, match=told):
        read_calls(written(tmp_path, text))


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(b"{\xff\xfe\x00")
    with pytest.raises(TraceMalformed, match="is no text"):
        read_calls(path)


def test_an_unknown_pool_is_told_with_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(TraceMalformed, match="there are a, b"):
        read_rates(written(tmp_path, RATES), "c")


def test_a_scenario_plays_a_file_beside_it(tmp_path: Path) -> None:
    written(tmp_path, AZURE)
    written(tmp_path, RATES, "rates.csv")
    trace = playing('{ kind = "trace", file = "trace.txt", speed = 2.0 }', tmp_path).build()
    assert trace.classes[0].arrivals == Trace(
        (0.0, 1.319, 4.315), (374, 879, 396), (44, 55, 109), 2.0
    )
    rates = playing('{ kind = "steps", file = "rates.csv", pool = "b" }', tmp_path).build()
    assert rates.classes[0].arrivals == Steps((0.0,), (9.0,), 3.0)


@pytest.mark.parametrize(
    ("arrivals", "told"),
    [
        ('{ kind = "trace", file = "none.csv" }', "small.toml:16: .*no file 'none.csv'"),
        ('{ kind = "trace", file = "trace.txt", pool = 3 }', "small.toml:16: .*pool"),
        ('{ kind = "trace", file = "trace.txt", rate = 3 }', "there is no such field"),
        ('{ kind = "poisson", file = "trace.txt" }', "one of trace, steps"),
        ('{ kind = "steps", file = "rates.csv", part_s = [9, 3] }', "0 <= from < to"),
        ('{ kind = "steps", file = "rates.csv", pool = "z" }', "no rates of 'z'"),
    ],
)
def test_a_file_that_cannot_be_played_is_told_with_its_line(
    tmp_path: Path, arrivals: str, told: str
) -> None:
    written(tmp_path, AZURE)
    written(tmp_path, RATES, "rates.csv")
    with pytest.raises(ScenarioFileMalformed, match=told):
        playing(arrivals, tmp_path).build()


@pytest.mark.parametrize("name", ["/etc/passwd", "../scenarios/azure_conv.csv", "none.csv", ".."])
def test_who_is_elsewhere_can_name_no_file_but_those_of_the_project(name: str) -> None:
    with pytest.raises(ScenarioFileMalformed, match="comes with the project"):
        playing(f'{{ kind = "trace", file = "{name}" }}', None).build()
    own = playing('{ kind = "trace", file = "azure_conv.csv" }', None).build()
    assert isinstance(own.classes[0].arrivals, Trace)


def test_cells_need_no_file(tmp_path: Path) -> None:
    path = written(tmp_path, MOONCAKE)
    settings: list[tuple[str, Any]] = [("classes.chat.arrivals.file", str(path))]
    plan = make_plan(load("azure_conv"), ["posted"], 1, settings=settings, static=False)
    path.unlink()
    (cell,) = plan.cells()
    arrivals = cell.text.build(cell.settings).classes[0].arrivals
    assert isinstance(arrivals, Trace)
    assert arrivals.tokens_in == (6955, 5)
    assert str(path) in plan.text


def test_a_file_is_on_no_grid(tmp_path: Path) -> None:
    written(tmp_path, MOONCAKE)
    axis = parse_axis(f"classes.chat.arrivals.file={tmp_path / 'trace.txt'},azure_conv.csv")
    with pytest.raises(ScenarioFileMalformed, match="comes with the project"):
        make_plan(load("azure_conv"), ["posted"], 1, grid=[axis])

"""A fit finds the server behind a run, and predicts what it has not seen; made-up and real runs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from simulations.calibration import calibrate_command
from simulations.calibration.calibrate import (
    E2E_MISSED_MAX,
    TTFT_MISSED_MAX,
    Calibration,
    Errors,
    calibrate,
    errors,
    fit,
    predict,
)
from simulations.calibration.observed import ObservationMalformed, Observed, read_observed
from simulations.supply import BatchingServer

SERVER = BatchingServer(
    c0_s=0.015,
    c1_s=1e-4,
    c2_s=1.2e-7,
    c3_s=8e-5,
    kv_tokens_max=200_000,
    batch_max=32,
    step_tokens_max=2_048,
)
RUNS_FROM = "BROKER_VLLM_RUNS"
"""An environment variable: a folder of folders, each with the requests.jsonl of a real run."""


def a_run(requests: int, noise: float = 0.0, apart_s: float = 0.15) -> Observed:
    """A run of that server, its moments off by a little; by itself under more calls than it can
    take."""
    rng = np.random.default_rng(5)
    empty = np.zeros(requests)
    run = Observed(
        arrival_s=np.cumsum(rng.exponential(apart_s, requests)),
        first_s=empty,
        last_s=empty,
        tokens_in=rng.integers(100, 1_500, requests),
        tokens_out=rng.integers(20, 250, requests),
        skipped=0,
    )
    first_s, last_s = predict(run, SERVER)
    ttft_s = (first_s - run.arrival_s) * np.exp(rng.normal(0.0, noise, requests))
    rest_s = (last_s - first_s) * np.exp(rng.normal(0.0, noise, requests))
    return replace(run, first_s=run.arrival_s + ttft_s, last_s=run.arrival_s + ttft_s + rest_s)


def test_the_server_behind_a_run_is_found_from_half_of_it() -> None:
    run = a_run(40, noise=0.01)
    half = np.arange(20)
    found = fit(run, half)
    assert found.c0_s == pytest.approx(SERVER.c0_s, rel=0.1)
    missed = errors(run, found, np.arange(20, 40))
    assert missed.e2e_median <= E2E_MISSED_MAX
    assert missed.ttft_median <= TTFT_MISSED_MAX


def test_a_run_that_goes_on_long_after_what_is_known_of_it_is_fitted() -> None:
    run = a_run(60, apart_s=30.0)
    found = fit(run, np.arange(30))
    assert errors(run, found, np.arange(30, 60)).e2e_median <= 0.05


def test_another_server_is_told_apart() -> None:
    run, every = a_run(60), np.arange(60)
    assert errors(run, SERVER, every).e2e_median == pytest.approx(0.0, abs=1e-9)
    slower = replace(SERVER, c0_s=1.2 * SERVER.c0_s)
    assert errors(run, slower, every).e2e_median > 0.1


def test_a_handful_of_requests_is_not_enough() -> None:
    with pytest.raises(ObservationMalformed, match="needs 20"):
        calibrate(a_run(12))


def observed(asked: Observed) -> Observed:
    """What that server makes of what was asked, its moments off by four in a thousand."""
    rng = np.random.default_rng(9)
    first_s, last_s = predict(asked, SERVER)
    ttft_s = (first_s - asked.arrival_s) * np.exp(rng.normal(0.0, 0.004, asked.size))
    return replace(
        asked, first_s=asked.arrival_s + ttft_s, last_s=asked.arrival_s + ttft_s + last_s - first_s
    )


@pytest.mark.parametrize("seed", [1, 11, 14])
def test_long_prompts_that_wait_for_each_other_are_predicted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    prompts, answers = rng.integers(2_000, 8_000, 40), rng.integers(1, 5, 40)
    run = observed(replace(a_run(40), tokens_in=prompts, tokens_out=answers))
    missed = errors(run, fit(run, np.arange(20)), np.arange(20, 40))
    assert missed.e2e_median <= 0.01
    assert missed.ttft_median <= 0.01


def all_at_once(seed: int, longest: tuple[int, int]) -> Errors:
    """By how much the second half of such a run is missed; `longest` prompt and answer."""
    rng = np.random.default_rng(seed)
    prompts, answers = rng.integers(100, longest[0], 40), rng.integers(20, longest[1], 40)
    asked = replace(a_run(40), arrival_s=np.zeros(40), tokens_in=prompts, tokens_out=answers)
    run = observed(asked)
    return errors(run, fit(run, np.arange(20)), np.arange(20, 40))


def test_requests_that_come_all_at_once_are_predicted() -> None:
    """Who waits in line waits for the others to be read, which says little of his own prompt."""
    missed = all_at_once(98, (6_000, 80))
    assert missed.e2e_median <= E2E_MISSED_MAX
    assert missed.ttft_median <= TTFT_MISSED_MAX


def test_servers_that_fit_alike_count_once_among_those_that_are_looked_into_further() -> None:
    """Three that differ in a limit in nobody's way would leave no room for the one to go on with:
    this run is missed by 2.5% and 8.7% then."""
    missed = all_at_once(7, (1_500, 250))
    assert missed.e2e_median <= 0.01
    assert missed.ttft_median <= 0.01


def a_file(run: Observed, at: Path) -> Path:
    columns = (run.tokens_in, run.tokens_out, run.arrival_s, run.first_s, run.last_s)
    names = ("input_toks", "output_toks", "arrival_time", "first_token_ts", "last_token_ts")
    rows = zip(*(each.tolist() for each in columns), strict=True)
    told = [msgspec.json.encode(dict(zip(names, row, strict=True))) for row in rows]
    at.write_bytes(b"\n".join(told))
    return at


def asked(*words: object) -> Result:
    app = typer.Typer()
    app.command()(calibrate_command.calibrate)
    return CliRunner().invoke(app, [str(each) for each in words])


def test_a_fit_that_predicts_badly_is_told_not_to_be_relied_on(tmp_path: Path) -> None:
    run, out = a_run(20), tmp_path / "server.toml"
    slow_s = np.where(np.arange(20) < 10, 0.0, 60.0)
    spoiled = replace(run, first_s=run.first_s + slow_s, last_s=run.last_s + slow_s)
    told = asked(a_file(spoiled, tmp_path / "bad.jsonl"), "--json", "--out", str(out))
    assert told.exit_code == 0
    assert told.stderr.startswith("Do not rely on this fit: what it had not seen it missed by 9")
    found = msgspec.json.decode(told.stdout)
    assert found["predicted"]["e2e_median"] > E2E_MISSED_MAX
    assert found["doubt"] == told.stderr.strip()
    assert "too much to rely on" in out.read_text()


def test_a_fit_that_predicts_well_is_told_without_a_doubt(tmp_path: Path) -> None:
    out = tmp_path / "server.toml"
    told = asked(a_file(a_run(40), tmp_path / "good.jsonl"), "--out", str(out))
    assert (told.exit_code, told.stderr) == (0, "")
    assert "rely" not in out.read_text()


@pytest.mark.parametrize("missed", [(0.051, 0.2), (0.05, 0.201)])
def test_either_median_alone_is_enough_for_a_doubt(missed: tuple[float, float]) -> None:
    seen = Errors(0.0, 0.0, 0.0, 0.0)
    good = Errors(0.05, 0.9, 0.2, 0.9)
    found = Calibration(SERVER, SERVER, seen, good, 40, 0, is_cache_bound=True)
    assert found.doubt is None
    bad = Errors(missed[0], missed[0], missed[1], missed[1])
    assert replace(found, predicted=bad).doubt is not None


def a_line(**changed: float | None) -> bytes:
    """A request that came 5 s after the first clock began, 100 s after the second."""
    told = {"input_toks": 9, "output_toks": 4, "arrival_time": 5.0, "queued_ts": 100.0}
    told |= {"scheduled_ts": 100.5, "first_token_ts": 101.0, "last_token_ts": 103.0}
    return msgspec.json.encode(told | changed)


@pytest.mark.parametrize(
    "failed",
    [
        {"first_token_ts": 0.0, "last_token_ts": 0.0},
        {"first_token_ts": None, "last_token_ts": None},
        {"output_toks": 0},
    ],
    ids=["moments of zero", "no moments", "no token"],
)
def test_requests_that_were_not_served_are_counted_and_left_out(
    failed: dict[str, float | None],
) -> None:
    run = read_observed([a_line(), a_line(**failed), a_line(arrival_time=6.0, queued_ts=101.0)])
    assert run.size == 2
    assert run.skipped == 1


def test_a_moment_of_zero_moves_no_clock() -> None:
    run = read_observed([a_line(), a_line(queued_ts=0.0, scheduled_ts=0.0)])
    assert run.ttft_s.tolist() == [1.0, 1.0]


def test_a_moment_of_zero_is_no_arrival_where_none_is_told() -> None:
    with pytest.raises(ObservationMalformed, match="'arrival_time' is missing"):
        read_observed([a_line(arrival_time=None, queued_ts=0.0)])


def test_lines_in_any_order_tell_the_same_run() -> None:
    lines = [a_line(arrival_time=5.0 + each, input_toks=10 + each) for each in range(4)]
    assert read_observed(lines[::-1]).tokens_in.tolist() == [10, 11, 12, 13]


def _runs() -> list[Path]:
    folder = os.environ.get(RUNS_FROM)
    return sorted(Path(folder).glob("*/requests.jsonl")) if folder else []


@pytest.mark.parametrize("path", _runs() or [None], ids=lambda path: path and path.parent.name)
def test_the_second_half_of_a_real_run_is_predicted_from_the_first(path: Path | None) -> None:
    if path is None:
        pytest.skip(f"{RUNS_FROM} names no folder of real runs")
    with path.open("rb") as lines:
        run = read_observed(lines)
    half = run.size // 2
    missed = errors(run, fit(run, np.arange(half)), np.arange(half, run.size))
    assert missed.e2e_median <= E2E_MISSED_MAX
    assert missed.ttft_median <= TTFT_MISSED_MAX

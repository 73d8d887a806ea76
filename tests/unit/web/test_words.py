"""How the console says numbers, and draws prices."""

from __future__ import annotations

import re

import pytest

from broker.core.catalog import Band
from pricing.book import Rate
from web import sparkline, words
from web.board import change_text
from web.scale import scale

TOKENS = Band(100_000, 200_000, 1_000_000, 400_000, 800_000, 40_000_000)
CALLS = Band(floor_call_nanos=100_000, list_call_nanos=200_000, ceiling_call_nanos=10_000_000)


@pytest.mark.parametrize(
    ("nanos", "said"),
    [
        (0, "$0.00"),
        (1, "$0.000000001"),
        (159_480, "$0.000159"),
        (12_340_000, "$0.0123"),
        (999_999_999, "$1.00"),
        (1_234_567_890_000, "$1,234.57"),
        (-2_500_000_000, "\u2212$2.50"),
    ],
)
def test_an_amount_is_short_and_never_rounds_to_nothing(nanos: int, said: str) -> None:
    assert words.usd(nanos) == said


@pytest.mark.parametrize(
    ("dollars", "said"),
    [(0.0, "0.000"), (0.000253, "0.000253"), (0.0125, "0.0125"), (0.4, "0.400"), (48.0, "48.00")],
)
def test_a_price_keeps_its_first_digits(dollars: float, said: str) -> None:
    assert words.price(dollars) == said


def test_the_headline_is_the_output_price_else_the_input_else_the_call() -> None:
    assert words.headline(Rate(100_000, 400_000, 0)) == 0.4
    assert words.headline(Rate(100_000, 0, 0)) == 0.1
    assert words.headline(Rate(0, 0, 200_000)) == 0.0002
    assert words.headline(None) == 0.0
    assert words.unit(TOKENS) == "Mtok out"
    assert words.unit(CALLS) == "call"


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [(None, "\u2013"), (1.24, "1.2 ms"), (842.4, "842 ms"), (1_240.0, "1.24 s"), (90e3, "1.5 min")],
)
def test_a_duration_is_in_the_unit_that_reads_best(milliseconds: float | None, said: str) -> None:
    assert words.duration(milliseconds) == said


def test_nearly_all_is_not_all() -> None:
    assert words.percent(0.999) == "99%"
    assert words.percent(1.0) == "100%"
    assert words.percent(1.25) == "125%"


def test_points_have_their_sign() -> None:
    told = [words.points(each) for each in (0.416, -0.05, 0.001)]
    assert told == ["+42", f"{words.MINUS}5", "0"]


def test_a_change_that_rounds_to_none_is_left_out() -> None:
    assert change_text(0.0) == change_text(0.0004) == ""
    assert change_text(0.066) == "+6.6%"
    assert change_text(-0.5) == "\u221250.0%"


def numbers(path: str) -> list[float]:
    return [float(each) for each in re.findall(r"-?\d+(?:\.\d+)?", path)]


def test_a_sparkline_moves_in_steps_and_stays_in_its_box() -> None:
    path = sparkline.path([(-50.0, 1.0), (300.0, 2.0), (450.0, 1.5)], 0.0, 600.0)
    assert re.fullmatch(r"M0\.0 \d+\.\d(H\d+\.\dV\d+\.\d){2}H120", path)
    assert "H60.0V" in path
    assert all(0 <= each <= sparkline.WIDTH for each in numbers(path))


def test_a_steady_price_is_a_line_in_the_middle_however_small_it_moves() -> None:
    middle = sparkline.HEIGHT / 2
    assert sparkline.path([(0.0, 3.0)], 0.0, 600.0) == f"M0.0 {middle:.1f}H120"
    path = sparkline.path([(0.0, 3.0), (300.0, 3.001)], 0.0, 600.0)
    [height] = re.findall(r"V(\d+\.\d)", path)
    assert abs(float(height) - middle) < 1.0


def test_the_area_below_a_price_begins_where_the_price_does() -> None:
    path = sparkline.path([(300.0, 1.0), (450.0, 2.0)], 0.0, 600.0)
    assert sparkline.under(path) == f"{path}V28H60.0Z"


def test_no_history_draws_nothing() -> None:
    assert sparkline.path([], 0.0, 600.0) == ""
    assert sparkline.under("") == ""
    assert sparkline.change([], 0.0) == 0.0


def test_the_scale_is_logarithmic_from_floor_to_ceiling() -> None:
    shown = scale(TOKENS, Rate(0, 4_000_000, 0))
    assert (shown.floor, shown.listed, shown.ceiling) == (0.4, 0.8, 40.0)
    assert shown.now_share == pytest.approx(0.5)
    assert scale(CALLS, Rate(0, 0, 100_000)).now_share == 0.0
    assert scale(CALLS, Rate(0, 0, 10_000_000)).now_share == 1.0
    assert scale(CALLS, None).now_share is None


def test_a_change_is_told_since_the_window_began_and_of_nobody_who_had_no_price_by_then() -> None:
    points = [(300.0, 1.0), (450.0, 2.0), (600.0, 1.5)]
    assert sparkline.change([(-50.0, 1.2), *points], 0.0) == pytest.approx(0.25)
    assert sparkline.change(points, 300.0) == pytest.approx(0.5)
    assert sparkline.change(points, 0.0) == 0.0
    assert sparkline.change([(0.0, 0.0), *points], 0.0) == 0.0, "nothing is a share of no price"

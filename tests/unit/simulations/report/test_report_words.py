"""How numbers of a report are written, and what its sentences claim."""

from __future__ import annotations

import math

import pytest

from simulations.measured.statistics import Interval
from simulations.report.drawing import Line, Look, lines_plot
from simulations.report.panels import Heat, heat_map
from simulations.report.scales import apart, clock, clock_unit, lasting, setting
from simulations.report.words import best_of


def around(mean: float, half: float) -> Interval:
    return Interval(mean, mean - half, mean + half, 5)


@pytest.mark.parametrize(
    ("mean", "half", "unit", "told"),
    [
        (0.9534, 0.0123, "%", ("95.3%", "1.2")),
        (0.9534, 0.00004, "%", ("95.3%", "0")),
        (1234.5, 67.0, "USD/h", ("1,234", "67")),
        (0.98765, 0.0123, "x", ("0.988\N{MULTIPLICATION SIGN}", "0.012")),
        (5.0, 0.0, "", ("5", "0")),
        (4.2, math.nan, "s", ("4.2", "")),
        (math.nan, math.nan, "s", ("\N{EN DASH}", "")),
        (2e-5, 3e-6, "", ("20 µ", "3 µ")),
        (-12.34, 0.56, "", ("\N{MINUS SIGN}12.34", "0.56")),
    ],
)
def test_a_mean_has_as_many_decimals_as_are_known(
    mean: float, half: float, unit: str, told: tuple[str, str]
) -> None:
    assert apart(mean, half, unit) == told


def test_what_is_best_is_so_beyond_chance() -> None:
    found = {"excess": around(0.95, 0.01), "pi": around(0.90, 0.01), "posted": around(0.5, 0.2)}
    assert best_of("welfare_share", found) == "excess"
    assert best_of("welfare_share", found | {"pi": around(0.945, 0.01)}) is None
    assert best_of("failed_share", found) == "posted"
    assert best_of("load", found) is None


def test_of_one_seed_nothing_is_best() -> None:
    one = Interval(0.95, math.nan, math.nan, 1)
    assert best_of("welfare_share", {"excess": one, "pi": around(0.2, 0.01)}) is None


def test_a_price_that_stands_still_is_not_the_calmest() -> None:
    found = {"posted": around(0.0, 0.0), "excess": around(9.0, 1.0), "pi": around(90.0, 1.0)}
    assert best_of("reversals_per_h", found) == "excess"


def test_a_run_tells_its_times_in_one_way() -> None:
    short, long = 200.0, 7_200.0
    assert [clock(at, short) for at in (0.0, 30.0, 60.0, 90.0)] == ["0:00", "0:30", "1:00", "1:30"]
    assert [clock(at, long) for at in (0.0, 1_800.0, 3_600.0)] == ["0:00", "0:30", "1:00"]
    assert (clock_unit(short), clock_unit(long)) == ("min:s", "h:min")
    assert [lasting(each) for each in (90.0, 2_000.0, 86_400.0)] == [
        "1 min 30 s",
        "33 min 20 s",
        "24 h",
    ]


def test_people_are_told_settings_in_three_digits_and_names_as_they_are() -> None:
    assert [setting(each) for each in (2 + 5 / 6, 4.0, 64, "excess")] == [
        "2.83",
        "4",
        "64",
        "excess",
    ]


def test_the_name_of_a_level_is_drawn_over_the_lines_that_would_cross_it_out() -> None:
    line = Line("excess", "p-excess", [0.5, 1.5])
    plot = lines_plot([0.0, 1.0], [line], Look(title="Load", levels=((0.9, "target"),)))
    assert plot.index(">target<") > plot.index("<path")


@pytest.mark.parametrize("best_is_high", [True, False])
def test_of_cells_that_are_as_good_the_first_is_framed(best_is_high: bool) -> None:
    best = 0.8 if best_is_high else 0.2
    cells = [[0.5, best], [0.5, best]]
    heat = Heat("x", ["1", "2"], "gain", ["3", "4"], cells, "%", (0.2, 0.8), best_is_high)
    (framed,) = (each for each in heat_map(heat).split("<rect ") if 'class="best"' in each)
    assert "x 2, gain 3:" in framed

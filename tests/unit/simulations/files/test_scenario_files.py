"""Scenario files: what comes with the project is sound, and what is wrong is told with its line."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from simulations.demand import DayNight, Poisson, Shape
from simulations.files.lines import line_of
from simulations.files.load import (
    ScenarioFileMalformed,
    ScenarioText,
    load,
    names,
    parse,
    parse_settings,
)
from simulations.files.schema import schema_text
from simulations.supply import Undercut

ASKED_FOR = {
    *("steady", "flash_crowd", "day_night", "outage", "undercutting", "entry", "liar"),
    *("azure_conv", "specialists_vs_generalist"),
}
SMALL = """\
# a market of one
horizon_s = 100.0

[[providers]]
name = "acme"
copies = 2

[[providers.endpoints]]
name = "chat"
capacity = 8
band = { out_usd = [0.1, 0.4, 8.0] }
server = { kind = "sharing_server" }

[[classes]]
name = "callers"
arrivals = { kind = "poisson", rate_per_s = 3.0 }
value = { shape = "isoelastic", mean_usd = 0.001, elasticity = 2.0 }
"""


def small(text: str = SMALL) -> ScenarioText:
    return parse(text, "small.toml")


def test_every_scenario_that_comes_with_the_project_is_sound() -> None:
    assert set(names()) >= ASKED_FOR
    for name in names():
        scenario = load(name).build()
        assert scenario.name == name
        assert scenario.description.endswith(".")
        assert 0.0 < scenario.warm_up_s < scenario.horizon_s


def test_the_schema_beside_the_scenarios_is_that_of_the_code() -> None:
    """If not: python -c 'from simulations.files.schema import schema_text; print(schema_text())'"""
    written = Path(str(files("simulations"))) / "scenarios" / "scenario.schema.json"
    assert written.read_text() == schema_text()


def test_a_file_says_what_it_means() -> None:
    scenario = small().build()
    assert scenario.name == "small"
    assert scenario.endpoint_names == ("acme-1/chat", "acme-2/chat")
    band = scenario.endpoints[0][1].band
    assert (band.floor_out_micros, band.list_out_micros) == (100_000, 400_000)
    assert scenario.classes[0].arrivals == Poisson(3.0)
    assert scenario.classes[0].value.shape is Shape.ISOELASTIC
    assert isinstance(load("undercutting").build().providers[0].strategy, Undercut)
    assert isinstance(load("day_night").build().classes[0].arrivals, DayNight)


@pytest.mark.parametrize(
    ("written", "wrong", "told"),
    [
        ("capacity = 8", "capcity = 8", "was 'capacity' meant?"),
        ("capacity = 8", "capacity = 8.5", "must be a whole number, not 8.5."),
        ("rate_per_s = 3.0", "rate_per_s = true", "must be a number, not true."),
        ("rate_per_s = 3.0", "rate_per_s = 1e12", "at most 10,000,000 calls a second"),
        ('"poisson"', '"poison"', "it is one of poisson, gamma_bursts"),
        ("copies = 2", "copies = 0", "must be from 1 to 1000."),
        ("[0.1, 0.4, 8.0]", "[0.5, 0.4, 8.0]", "must be 0 < floor <= list <= ceiling."),
        ("[0.1, 0.4, 8.0]", "[0.1, 0.4]", "must be an array of floor, list, ceiling."),
        ("[0.1, 0.4, 8.0]", "[0.1, 0.40000001, 8.0]", "must have at most 6 decimals."),
        ('"isoelastic"', '"elastic"', "must be one of fixed, uniform"),
        (
            "horizon_s = 100.0",
            "warm_up_s = 100.0\nhorizon_s = 100.0",
            "must be below horizon_s",
        ),
        ("horizon_s = 100.0", "horizon_s = ", "small.toml:2:"),
        ("horizon_s = 100.0", "horizon_s = 'long'", "must be a number, not 'long'."),
        ("horizon_s = 100.0", "horizon_s = -1.0", "must be above 0, not -1.0."),
        ("capacity = 8", "capacity = 0", "must be above 0, not 0."),
        ("capacity = 8", "failures = 1.5", "must be from 0 to 1, not 1.5."),
        ("capacity = 8", "queue_max = -1", "must not be below 0, and is -1."),
        ("capacity = 8", "exits_s = 0.0", "must come after 'enters_s'."),
        ("capacity = 8", "outages = [{ from_s = 9, to_s = 5 }]", "must come after 'from_s'."),
        (
            "capacity = 8",
            "brownouts = [{ from_s = 1, to_s = 5 }, { from_s = 4, to_s = 6 }]",
            "begins before another is over.",
        ),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(written: str, wrong: str, told: str) -> None:
    line = 1 + SMALL[: SMALL.index(written)].count("\n")
    with pytest.raises(ScenarioFileMalformed) as caught:
        small(SMALL.replace(written, wrong)).build()
    assert caught.value.detail.startswith(f"small.toml:{line}: ")
    assert told in caught.value.detail
    assert caught.value.facts["line"] == line


@pytest.mark.parametrize(
    ("arrivals", "told"),
    [
        ('"mmpp", rates_per_s = [1.0, 0.0], mean_stay_s = [1e-9, 1e-9]', "change 1e+11 times"),
        ('"mmpp", rates_per_s = [1e-300, 0.0], mean_stay_s = [1.0, 1.0]', "until a call comes"),
        ('"mmpp", rates_per_s = [1.0], mean_stay_s = [1.0, 2.0]', "one value for each of 'rates"),
        ('"mmpp", rates_per_s = [], mean_stay_s = []', "and at least one."),
        ('"mmpp", rates_per_s = [1.0], mean_stay_s = [inf]', "must have an end."),
        ('"steps", from_s = [0.0], rates_per_s = [1.0, 2.0]', "one value for each of 'from_s'"),
        ('"steps", from_s = [50.0, 10.0], rates_per_s = [1.0, 2.0]', "below the one before it, 50"),
        ('"trace", arrival_s = [0.0, 1.0], tokens_in = [9]', "one value for each of 'arrival_s'"),
        ('"trace", arrival_s = [2.0, 1.0]', "must not be below the one before it, 2."),
        (
            '"gamma_bursts", rate_per_s = 1.0, cv = 1e9',
            "or from 0.001 to 100, not 1e+09",
        ),
        ('"day_night", rate_per_s = 1.0, period_s = inf', "must have an end."),
    ],
)
def test_arrivals_that_would_never_come_to_a_call_or_an_end_are_refused(
    arrivals: str, told: str
) -> None:
    usual = '"poisson", rate_per_s = 3.0'
    with pytest.raises(ScenarioFileMalformed) as caught:
        small(SMALL.replace(usual, arrivals)).build()
    assert caught.value.detail.startswith("small.toml:16: classes.0.arrivals.")
    assert told in caught.value.detail


def test_what_is_missing_is_told_where_it_should_stand() -> None:
    with pytest.raises(ScenarioFileMalformed, match=r"small.toml:8: .*'name' is missing"):
        small(SMALL.replace('\nname = "chat"', "")).build()


def test_a_line_is_found_behind_texts_and_arrays_of_many_lines() -> None:
    text = 'a = """\nb = 1\n[c]\n"""\nd = [\n  { e = 1 },\n]\n[[f]]\ng = 1\n[[f]]\n[f.h]\ni.j = 2\n'
    assert line_of(text, ("d", 0, "e")) == 5
    assert line_of(text, ("f", 0, "g")) == 9
    assert line_of(text, ("f", 1, "h", "i", "j")) == 12
    assert line_of(text, ("b",)) is None


def test_single_values_are_set_by_name() -> None:
    settings = parse_settings(
        [
            "providers.acme.copies=1",
            "providers.*.endpoints.chat.capacity=3",
            "controller=pi",
            "controller.kp=0.2",
            "controller.gain=2",
            "demand.elasticity=3",
            "demand.scale=2",
            "demand.value=10",
            "list.scale=2",
        ]
    )
    scenario = small().build(settings)
    assert scenario.endpoint_names == ("acme/chat",)
    assert scenario.endpoints[0][1].capacity == 3
    assert scenario.endpoints[0][1].band.list_out_micros == 800_000
    assert scenario.prices.controller == "pi"
    assert scenario.prices.parameters == {"kp": 0.4, "ki_per_s": pytest.approx(1 / 30)}
    assert scenario.classes[0].arrivals == Poisson(6.0)
    assert scenario.classes[0].value.elasticity == 3.0
    assert scenario.classes[0].value.mean_usd == pytest.approx(0.01)


def test_another_controller_keeps_the_numbers_that_it_has_too() -> None:
    shared = small(SMALL + "[prices.parameters]\ntarget = 0.9\nk_s = 30.0\n")
    assert shared.build([("controller", "pi")]).prices.parameters == {"target": 0.9}
    assert shared.build([("controller", "excess")]).prices.parameters["k_s"] == 30.0
    assert shared.build([("controller", "posted")]).prices.parameters == {}


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(SMALL, encoding="utf-8-sig")
    assert load(str(path)).build() == small().build()
    with pytest.raises(ScenarioFileMalformed, match=r"small.toml:1: horizon_s: must be above 0"):
        parse(
            "\ufeff" + SMALL.replace("# a market of one\nhorizon_s = 1", "horizon_s = -1"),
            path.name,
        ).build()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("controller.gain", "x", "controller.gain: must be a number, not 'x'."),
        ("providers.globex.copies", 1, "providers.globex.copies: there is no 'globex'"),
        ("a..b", 1, "a..b: 'a..b' is no name of a value."),
        ("", 1, ": '' is no name of a value."),
    ],
)
def test_what_cannot_be_set_is_named_once(name: str, value: object, told: str) -> None:
    with pytest.raises(ScenarioFileMalformed) as caught:
        small().build([(name, value)])
    assert caught.value.detail.startswith(told)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        (("providers.globex.copies", 1), "there is no 'globex'; there are acme."),
        (("controller.gain", -1.0), "above zero"),
        (("controller", "magic"), "is one of posted, excess"),
        (("controller.magic", 1.0), "takes target, k_s"),
        (
            ("demand.scal", 1.5),
            "there are controller, controller.gain, demand.elasticity, demand.sc",
        ),
        (("list.prices", 1.5), "there is no such value to set"),
        (("demand.elasticity", "much"), "must be a number"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(setting: tuple[str, object], told: str) -> None:
    with pytest.raises(ScenarioFileMalformed) as caught:
        small().build([setting])
    assert told in caught.value.detail


def test_a_scenario_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(ScenarioFileMalformed, match="there are azure_conv, day_night"):
        load("tomorrow")
    with pytest.raises(ScenarioFileMalformed, match=r"none.toml cannot be read: No such file or"):
        load("none.toml")

"""What operators order over the API: read, checked, and turned into a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from broker.errors import RequestMalformed
from simulations.files.load import ScenarioFileMalformed, load, names, parse
from simulations.studies.plan import Axis, Plan, make_plan
from simulations.studies.study import size_of

CELLS_MAX = 2_000
"""Runs of an order at most: more is for `broker sweep`."""


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An order: a scenario by name or as TOML, and what is to be run of it."""

    scenario: str = ""
    toml: str = ""
    controllers: tuple[str, ...] = ()
    seeds: int = 5
    settings: dict[str, float | int | str | bool] = {}
    grid: dict[str, tuple[float | int | str | bool, ...]] = {}
    static: bool = True


def check(asked: Mapping[str, Any]) -> str:
    """Check an order as it was sent, so that a fault is told at once; return the scenario's name.

    Raises RequestMalformed, ScenarioFileMalformed.
    """
    return plan_of(asked).name


def plan_of(asked: Mapping[str, Any]) -> Plan:
    """Return the plan of an order. Raises RequestMalformed, ScenarioFileMalformed."""
    try:
        order = msgspec.convert(asked, Asked)
    except msgspec.ValidationError as error:
        raise RequestMalformed(f"{error}.") from None
    if bool(order.scenario) == bool(order.toml):
        raise RequestMalformed("Name a 'scenario', or send one as 'toml'.")
    if order.scenario and order.scenario not in names():
        # Not any path: files of the broker's host are nobody's business.
        raise ScenarioFileMalformed(
            f"There is no scenario '{order.scenario}'; there are {', '.join(names())}."
        )
    written = load(order.scenario) if order.scenario else parse(order.toml, "toml")
    written = replace(written, folder=None)
    plan = make_plan(
        written,
        order.controllers,
        order.seeds,
        settings=tuple(order.settings.items()),
        grid=[Axis(name, values) for name, values in order.grid.items()],
        static=order.static and not order.grid,
    )
    if size_of(plan) > CELLS_MAX:
        raise RequestMalformed(
            f"An order runs at most {CELLS_MAX} cells, and these are {size_of(plan)}: "
            "'broker sweep' has no such limit."
        )
    return plan

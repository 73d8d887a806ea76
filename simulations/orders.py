"""What operators order over the API: read, checked, and turned into a plan."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import msgspec

from broker.core.wire.complaints import placed
from broker.errors import RequestMalformed
from pricing.choice import CONTROLLERS
from simulations.files.load import ScenarioFileMalformed, ScenarioText, load, names, parse
from simulations.replay.market import write_market
from simulations.studies.parcel import pack
from simulations.studies.plan import Axis, Plan, make_plan, read_axis
from simulations.studies.study import size_of

CELLS_MAX = 2_000
"""Runs of an order at most: more is for `broker sweep`."""
AXES_MAX = 5
KEPT_BYTES_MAX = 256 * 2**20
"""Of all runs before they are made, each with the scenario in it."""
MARKET = "market"


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An order: a scenario by name or as TOML or this market, and what is to be run of it."""

    scenario: str = ""
    toml: str = ""
    from_broker_days: float = 0.0
    elasticity: float = 1.5
    controllers: tuple[str, ...] = ()
    seeds: int = 5
    settings: dict[str, float | int | str | bool] = {}
    grid: Annotated[
        dict[str, tuple[float | int | str | bool, ...] | str], msgspec.Meta(max_length=AXES_MAX)
    ] = {}
    """Values by setting; a text is a range as `broker sweep` takes it."""
    static: bool = True

    @property
    def axes(self) -> list[Axis]:
        """Of the grid. Raises ScenarioFileMalformed."""
        return [
            read_axis(name, told, CELLS_MAX) if isinstance(told, str) else Axis(name, told)
            for name, told in self.grid.items()
        ]


def check(asked: Mapping[str, Any]) -> str:
    """Check an order as it was sent, so that a fault is told at once; return the scenario's name.

    What is wrong with an order of this market, whose calls are read when it is begun, may show no
    earlier than then. Raises RequestMalformed, ScenarioFileMalformed.
    """
    order = _read(asked)
    if not order.from_broker_days:
        return plan_of(asked).name
    for each in order.controllers:
        if each not in CONTROLLERS:
            raise ScenarioFileMalformed(
                f"There is no controller '{each}'; there are {', '.join(CONTROLLERS)}."
            )
    return MARKET


def plan_of(asked: Mapping[str, Any], told: Mapping[str, Any] | None = None) -> Plan:
    """Return the plan of an order; `told` is this market where it is asked for, as it is told by
    `broker.flows.market.tell_market`. Raises RequestMalformed, ScenarioFileMalformed,
    NothingToPlay."""
    order = _read(asked)
    plan = make_plan(
        _written(order, told),
        order.controllers,
        order.seeds,
        settings=tuple(order.settings.items()),
        grid=order.axes,
        static=order.static and not order.grid,
    )
    _require_few(size_of(plan))
    if len(pack(plan)) * size_of(plan) > KEPT_BYTES_MAX:
        raise RequestMalformed(
            f"So many calls in {size_of(plan)} runs are too much for an order: ask for fewer, or "
            "use 'broker simulate', which has no such limit."
        )
    return plan


@lru_cache
def offered() -> dict[str, list[dict[str, str]]]:
    """Return the scenarios and controllers that an order may name, each with what it is."""
    return {
        "scenarios": [
            {"name": name, "description": load(name).build().description} for name in names()
        ],
        "controllers": [
            {"name": name, "description": _sentence(kind)} for name, kind in CONTROLLERS.items()
        ],
    }


def _sentence(controller: Any) -> str:
    """What the module of a controller says of it first."""
    return str(sys.modules[controller.__module__].__doc__).partition("\n")[0]


def _read(asked: Mapping[str, Any]) -> Asked:
    try:
        order = msgspec.convert(asked, Asked)
    except msgspec.ValidationError as error:
        raise RequestMalformed(f"{placed(str(error), Asked)}.") from None
    if sum(map(bool, (order.scenario, order.toml, order.from_broker_days))) != 1:
        raise RequestMalformed(
            "Name a 'scenario', or send one as 'toml', or ask for this market by "
            "'from_broker_days'."
        )
    # Before any is made: of a hundred million points there would be no end.
    policies = len(set(order.controllers)) or 1
    _require_few(prod(len(axis.values) for axis in order.axes) * policies * order.seeds)
    return order


def _require_few(cells: int) -> None:
    if cells > CELLS_MAX:
        raise RequestMalformed(
            f"An order runs at most {CELLS_MAX} cells, and these are {cells}: "
            "'broker sweep' has no such limit."
        )


def _written(order: Asked, told: Mapping[str, Any] | None) -> ScenarioText:
    if told is not None:
        with TemporaryDirectory() as folder:
            return load(str(write_market(told, Path(folder), order.elasticity))).read()
    if order.scenario and order.scenario not in names():
        # Not any path: files of the broker's host are nobody's business.
        raise ScenarioFileMalformed(
            f"There is no scenario '{order.scenario}'; there are {', '.join(names())}."
        )
    written = load(order.scenario) if order.scenario else parse(order.toml, "toml")
    return replace(written, folder=None)

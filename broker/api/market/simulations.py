"""Simulations of the market: operators order them, watch them, and read their reports."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, MediaType, Response, get, post
from litestar.params import FromPath, JSONBody
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.api.callers import OPERATORS
from broker.api.once import GivenOnce
from broker.api.parts import GivenCaller, GivenParts, GivenTime
from broker.api.wire import LIMIT_DEFAULT, Body, Limit, Reply
from broker.flows.market.order_simulation import (
    cancel_simulation,
    offered,
    order_simulation,
    read_report,
    read_simulation,
    read_simulations,
)
from broker.store.market.simulations import StoredSimulation

Value = float | int | str | bool
Name = Annotated[str, msgspec.Meta(max_length=200)]

REPORT_HEADERS = {
    # The page's own script and style run, in an origin of their own, and nothing is fetched.
    "Content-Security-Policy": "sandbox allow-scripts; default-src 'none'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}


class SimulationAsked(Body, omit_defaults=True):
    """A scenario by its name, or sent as TOML, or this market and its calls of so many days;
    policies to compare, values to set, and a grid."""

    scenario: Name = ""
    toml: Annotated[str, msgspec.Meta(max_length=200_000)] = ""
    from_broker_days: Annotated[float, msgspec.Meta(ge=0.0, le=366.0)] = 0.0
    elasticity: Annotated[float, msgspec.Meta(ge=0.1, le=20.0)] = 1.5
    """Of the demand behind the calls of this market, which nobody knows."""
    controllers: Annotated[list[Name], msgspec.Meta(max_length=20)] = msgspec.field(
        default_factory=list
    )
    seeds: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5
    settings: Annotated[dict[Name, Value], msgspec.Meta(max_length=100)] = msgspec.field(
        default_factory=dict
    )
    grid: Annotated[
        dict[Name, Annotated[list[Value], msgspec.Meta(min_length=1, max_length=100)] | Name],
        msgspec.Meta(max_length=5),
    ] = msgspec.field(default_factory=dict)
    """Values by setting, or a range: "FROM:TO:COUNT", evenly, or with ":log" by a factor."""
    static: bool = True
    """Also search for the best static price; never with a grid."""


class SimulationShown(Reply):
    """An order and how far it is: `cells_done` runs of at most `cells`."""

    id: UUID
    name: str
    status: str
    author: str
    cells: int
    cells_done: int
    problem: str | None
    summary: list[dict[str, Any]] | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class SimulationOffered(Reply):
    """A scenario or a controller."""

    name: str
    description: str


class SimulationsOffered(Reply):
    """What an order may name."""

    scenarios: list[SimulationOffered]
    controllers: list[SimulationOffered]


class SimulationController(Controller):
    """`/api/simulations`"""

    path = "/simulations"
    tags = ("Simulations",)
    guards = (OPERATORS,)

    @post(summary="Order a simulation")
    async def order(
        self,
        data: JSONBody[SimulationAsked],
        caller: GivenCaller,
        now: GivenTime,
        once: GivenOnce,
    ) -> Response[SimulationShown]:
        asked = msgspec.to_builtins(data)

        async def act(connection: AsyncConnection) -> SimulationShown:
            return _shown(await order_simulation(connection, caller, asked, now))

        return await once(act, status=202)

    @get("/scenarios", summary="The scenarios and controllers that can be ordered")
    async def scenarios(self) -> SimulationsOffered:
        return msgspec.convert(await asyncio.to_thread(offered), SimulationsOffered)

    @get(summary="The newest simulations")
    async def newest(
        self, parts: GivenParts, limit: Limit = LIMIT_DEFAULT
    ) -> list[SimulationShown]:
        return [_shown(each) for each in await read_simulations(parts.engine, limit)]

    @get("/{simulation_id:uuid}", summary="How far a simulation is, and what came of it")
    async def one(self, simulation_id: FromPath[UUID], parts: GivenParts) -> SimulationShown:
        return _shown(await read_simulation(parts.engine, simulation_id))

    @get(
        "/{simulation_id:uuid}/report",
        summary="The report of a simulation that is done",
        media_type=MediaType.HTML,
    )
    async def report(self, simulation_id: FromPath[UUID], parts: GivenParts) -> Response[bytes]:
        page = await read_report(parts.engine, simulation_id)
        return Response(page, media_type=MediaType.HTML, headers=REPORT_HEADERS)

    @post("/{simulation_id:uuid}/cancel", summary="Call a simulation off")
    async def cancel(
        self, simulation_id: FromPath[UUID], caller: GivenCaller, now: GivenTime, once: GivenOnce
    ) -> Response[SimulationShown]:
        async def act(connection: AsyncConnection) -> SimulationShown:
            return _shown(await cancel_simulation(connection, caller, simulation_id, now))

        return await once(act, status=200)


def _shown(order: StoredSimulation) -> SimulationShown:
    return SimulationShown(
        id=order.id,
        name=order.name,
        status=order.status,
        author=order.author,
        cells=order.cells,
        cells_done=order.cells_done,
        problem=order.problem,
        summary=None if order.summary is None else [dict(each) for each in order.summary],
        created_at=order.created_at,
        started_at=order.started_at,
        ended_at=order.ended_at,
    )

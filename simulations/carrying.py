"""Carries orders out, step by step, on whichever worker is free.

A step works through what is known already, and sends out the cells that are missing then; whoever
ends a cell takes the next step if no other cell is under way. So any process may die at any time,
nothing waits for anything, and what was run once is not run again.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from uuid import UUID

from broker.errors import BrokerError
from simulations.cell import Cell, CellStopped, Outcome, run_cell
from simulations.doors import open_door
from simulations.measures import MEASURES
from simulations.orders import plan_of
from simulations.report.write import page_of
from simulations.studies.parcel import pack, unpack
from simulations.studies.plan import Plan
from simulations.studies.results import Results
from simulations.studies.study import Study, size_of

Answer = TypeVar("Answer")
LOOK_S = 2.0
"""How often who runs a cell looks whether it is still wanted."""


class Orders(Protocol):
    """What the broker keeps of orders; `room` is where its background work is done."""

    async def to_be_advanced(self, room: Any) -> list[UUID]: ...
    async def asked(self, room: Any, order_id: UUID) -> Mapping[str, Any] | None: ...
    async def plan(self, room: Any, order_id: UUID) -> str | None: ...
    async def market(self, room: Any, days: float) -> Mapping[str, Any]: ...
    async def begin(self, room: Any, order_id: UUID, plan: str, cells: int) -> None: ...
    async def outcomes(self, room: Any, order_id: UUID) -> list[str]: ...
    async def add_cells(
        self, room: Any, order_id: UUID, cells: Sequence[tuple[str, str]]
    ) -> list[str]: ...
    async def cell(self, room: Any, order_id: UUID, key: str) -> str | None: ...
    async def keep(self, room: Any, order_id: UUID, key: str, outcome: str) -> None: ...
    async def done(self, room: Any, order_id: UUID, report: str, summary: Any) -> None: ...
    async def failed(self, room: Any, order_id: UUID, problem: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Desk:
    """What a worker process has to carry orders out with."""

    run: Callable[[Callable[[Any], Awaitable[Any]]], Any]
    """The bridge from Celery into async."""
    send: Callable[[UUID, str], None]
    """Sends a cell of an order out, by its key."""

    @property
    def orders(self) -> Orders:
        """The broker's door to its orders."""
        orders: Orders = open_door("orders")
        return orders


class _CellsMissing(Exception):
    """The study cannot go on before these cells have been run."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        super().__init__(f"{len(cells)} cells")
        self.cells = cells


class _Asking:
    """A runner that runs nothing: it says what is missing."""

    def run(self, cells: Sequence[Cell]) -> Iterator[Outcome]:
        if cells:
            raise _CellsMissing(cells)
        return iter(())


class _Kept:
    """The outcomes that an order has by now."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self._by_key = {each.key: each for each in outcomes}

    def find(self, key: str) -> Outcome | None:
        return self._by_key.get(key)

    def keep(self, outcome: Outcome) -> None:
        self._by_key[outcome.key] = outcome


def take_up(desk: Desk) -> None:
    """Advance every order that waits for somebody to do so."""
    for order_id in desk.run(desk.orders.to_be_advanced):
        advance(desk, order_id)


def advance(desk: Desk, order_id: UUID) -> None:
    """Take the next step of an order: send cells out, or end it."""
    orders = desk.orders
    try:
        plan = _plan(desk, order_id)
        if plan is None:
            return
        packed = desk.run(lambda room: orders.outcomes(room, order_id))
        kept = _Kept([unpack(each, Outcome) for each in packed])
        results = Study(plan, _Asking(), kept).run()
    except _CellsMissing as missing:
        _send(desk, order_id, missing.cells)
        return
    except BrokerError as error:
        problem = error.detail
        desk.run(lambda room: orders.failed(room, order_id, problem))
        return
    page, summary = page_of(results), summary_of(results)
    desk.run(lambda room: orders.done(room, order_id, page, summary))


def run_ordered(desk: Desk, order_id: UUID, key: str) -> None:
    """Run one cell of an order, unless it was run or called off, and take the next step. One that
    is called off meanwhile ends within seconds."""
    orders = desk.orders

    def wanted() -> str | None:
        found: str | None = desk.run(lambda room: orders.cell(room, order_id, key))
        return found

    packed = wanted()
    if packed is None:
        return
    now_and_then = _NowAndThen(lambda: wanted() is not None)
    try:
        outcome = pack(run_cell(unpack(packed, Cell), now_and_then))
    except CellStopped:
        return
    except BrokerError as error:
        problem = error.detail
        desk.run(lambda room: orders.failed(room, order_id, problem))
        return
    desk.run(lambda room: orders.keep(room, order_id, key, outcome))
    if order_id in desk.run(orders.to_be_advanced):
        advance(desk, order_id)


class _NowAndThen:
    """Asks a question every LOOK_S, however often the answer is wanted."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask = ask
        self._asked_s = time.monotonic()

    def __call__(self, _: float) -> bool:
        now_s = time.monotonic()
        if now_s - self._asked_s < LOOK_S:
            return True
        self._asked_s = now_s
        return self._ask()


def summary_of(results: Results) -> list[dict[str, Any]]:
    """Return means and intervals by point, policy and measure, None where nothing was measured."""
    rows = []
    for point in results.plan.points:
        for policy in results.policies:
            found = {name: results.interval(name, policy, point) for name in MEASURES}
            rows.append(
                {
                    "point": dict(point),
                    "policy": policy,
                    "measures": {
                        name: {
                            "mean": each.mean,
                            # Of one seed there is no interval, and JSON has no NaN.
                            "low": each.low if each.count > 1 else None,
                            "high": each.high if each.count > 1 else None,
                        }
                        for name, each in found.items()
                        if each.count > 0
                    },
                }
            )
    return rows


def _plan(desk: Desk, order_id: UUID) -> Plan | None:
    """The plan of an order, made at its first step; None where there is no such order."""
    orders = desk.orders
    packed = desk.run(lambda room: orders.plan(room, order_id))
    if packed is not None:
        return unpack(packed, Plan)
    asked = desk.run(lambda room: orders.asked(room, order_id))
    if asked is None:
        return None
    days = float(asked.get("from_broker_days") or 0.0)
    told = desk.run(lambda room: orders.market(room, days)) if days else None
    plan = plan_of(asked, told)
    desk.run(lambda room: orders.begin(room, order_id, pack(plan), size_of(plan)))
    # Whoever began first is heard: of a market two may have been told two things.
    begun = desk.run(lambda room: orders.plan(room, order_id))
    return None if begun is None else unpack(begun, Plan)


def _send(desk: Desk, order_id: UUID, cells: Sequence[Cell]) -> None:
    rows = [(cell.key, pack(cell)) for cell in cells]
    orders = desk.orders
    for key in desk.run(lambda room: orders.add_cells(room, order_id, rows)):
        desk.send(order_id, key)

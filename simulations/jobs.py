"""The Celery tasks of simulations: single cells, and the orders that operators place.

They wait in a queue of their own, for which there are workers of their own: a cell that takes
minutes must not keep the upkeep of the books waiting. All workers know the tasks; only those that
run them load the simulator, each when the first comes.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from celery import Celery
from celery.exceptions import Ignore, SoftTimeLimitExceeded

from simulations.studies.lease import Awaited
from simulations.studies.parcel import CALL_OFF, CELL_TASK, QUEUE, pack, unpack

TAKE_UP_TASK = "simulations.take_up"
ORDERED_TASK = "simulations.ordered_cell"
TAKE_UP_S = 2.0
RESULT_KEPT_S = 86_400


class OtherCode(RuntimeError):
    """This worker's code differs from that of who sent the cell: the numbers might too."""


def register(app: Celery, bridge: Any) -> None:
    """Add the tasks to the app; `bridge` is the broker's way from Celery into async."""
    app.conf.result_backend = app.conf.result_backend or app.conf.broker_url
    app.conf.result_expires = RESULT_KEPT_S
    app.conf.beat_schedule[TAKE_UP_TASK] = {
        "task": TAKE_UP_TASK,
        "schedule": TAKE_UP_S,
        "options": {"queue": QUEUE, "expires": TAKE_UP_S},
    }

    def send(order_id: UUID, key: str) -> None:
        app.send_task(ORDERED_TASK, (str(order_id), key), queue=QUEUE)

    def look() -> None:
        from simulations.carrying import Desk, take_up

        take_up(Desk(bridge.run, send))

    def ordered_cell(order_id: str, key: str) -> None:
        from simulations.carrying import Desk, run_ordered

        run_ordered(Desk(bridge.run, send), UUID(order_id), key)

    def cell(packed: str, code: str, lease: str) -> str:
        return run_one(packed, code, Awaited(app.backend, lease))

    app.task(cell, name=CELL_TASK, ignore_result=False, acks_late=True, shared=False)
    app.task(look, name=TAKE_UP_TASK, shared=False)
    app.task(ordered_cell, name=ORDERED_TASK, acks_late=True, shared=False)


def run_one(packed: str, code: str, is_awaited: Callable[[], bool]) -> str:
    """Run a cell that another process sent; return its outcome. Raises OtherCode, and Ignore where
    it is called off or nobody waits for it any more."""
    from simulations.cell import Cell, CellStopped, run_cell
    from simulations.studies.folder import fingerprint

    if code != fingerprint():
        raise OtherCode("this worker runs other code than who sent the cell")
    if not is_awaited():
        raise Ignore
    try:
        with _hearing_call_off() as wanted:
            cell = unpack(packed, Cell)
            return pack(run_cell(cell, lambda share: wanted(share) and is_awaited()))
    except (CellStopped, SoftTimeLimitExceeded):
        raise Ignore from None


@contextmanager
def _hearing_call_off() -> Iterator[Callable[[float], bool]]:
    """Within the block CALL_OFF is no exception, as Celery has it, but turns the answer that is
    given here to False: an exception would be taken for the fault of whichever controller of prices
    happens to be asked, which a run survives."""
    called_off: list[int] = []
    number = signal.Signals[CALL_OFF]
    before = signal.signal(number, lambda heard, _: called_off.append(heard))
    try:
        yield lambda _: not called_off
    finally:
        signal.signal(number, before)

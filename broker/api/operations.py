"""What operators watch: the ledger's invariants."""

from __future__ import annotations

from typing import Any

from litestar import Controller, get
from litestar.params import FromQuery

from broker.api.callers import OPERATORS
from broker.api.parts import GivenEngine
from broker.api.wire import Reply
from broker.flows.check import check


class AlarmShown(Reply):
    """A row of an invariant view: something that must not be."""

    view: str
    row: dict[str, Any]


class LedgerChecked(Reply):
    """`ok` when there is no alarm."""

    ok: bool
    alarms: list[AlarmShown]


class OperationController(Controller):
    """`/api/ledger/check`"""

    guards = (OPERATORS,)
    tags = ("Operations",)

    @get("/ledger/check", summary="Ask whether the books balance")
    async def check(self, engine: GivenEngine, *, replay: FromQuery[bool] = False) -> LedgerChecked:
        alarms = await check(engine, replay=replay)
        shown = [AlarmShown(view=each.view, row=dict(each.row)) for each in alarms]
        return LedgerChecked(ok=not shown, alarms=shown)

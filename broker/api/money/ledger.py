"""The books under watch: asked now, and as the monitor last found them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from litestar import Controller, get
from litestar.params import FromQuery

from broker.api.callers import OPERATORS
from broker.api.long_reads import LONG
from broker.api.parts import GivenEngine, GivenTime
from broker.api.wire import Reply
from broker.flows.books.check import check
from broker.flows.books.monitor import Standing, read_standing
from broker.store.books.ledger_checks import CheckKind


class AlarmShown(Reply):
    """A row of an invariant view: something that must not be."""

    view: str
    row: dict[str, Any]


class LedgerChecked(Reply):
    """`ok` when there is no alarm."""

    ok: bool
    alarms: list[AlarmShown]


class StandingShown(Reply):
    """How one check of the monitor stands; `stale` when its last result is too old, so that it must
    have stopped. `alarms`: rows by view, at most 100 of each.
    """

    check: CheckKind
    ok: bool
    stale: bool
    at: datetime | None
    age_s: float | None
    took_ms: float | None
    alarms: dict[str, int]


class LedgerHealth(Reply):
    """`ok` when each check was made lately and found nothing."""

    ok: bool
    checks: list[StandingShown]


class LedgerController(Controller):
    """`/api/ledger/check` and `/api/ledger/health`"""

    path = "/ledger"
    guards = (OPERATORS,)
    tags = ("Operations",)

    @get("/check", summary="Ask whether the books balance", dependencies=LONG)
    async def check(self, engine: GivenEngine, *, replay: FromQuery[bool] = False) -> LedgerChecked:
        alarms = await check(engine, replay=replay)
        shown = [AlarmShown(view=each.view, row=dict(each.row)) for each in alarms]
        return LedgerChecked(ok=not shown, alarms=shown)

    @get("/health", summary="What the monitor found when it last looked")
    async def health(self, engine: GivenEngine, now: GivenTime) -> LedgerHealth:
        standings = await read_standing(engine, now)
        return LedgerHealth(
            ok=all(each.ok for each in standings), checks=[_shown(each) for each in standings]
        )


def _shown(standing: Standing) -> StandingShown:
    last = standing.last
    return StandingShown(
        check=standing.kind,
        ok=standing.ok,
        stale=standing.stale,
        at=None if last is None else last.at,
        age_s=standing.age_s,
        took_ms=None if last is None else last.took_ms,
        alarms={} if last is None else {v: n for v, n in last.alarms.items() if n},
    )

"""Watches the ledger: checks it, keeps what was found for all to see, and says how it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.flows.books.check import REPLAYS, Checked, check_views
from broker.store.books import ledger_checks
from broker.store.books.invariants import Alarm
from broker.store.books.ledger_checks import CheckKind, LastCheck

STALE_AFTER: Final[Mapping[CheckKind, timedelta]] = {
    CheckKind.INVARIANTS: timedelta(minutes=5),
    CheckKind.REPLAY: timedelta(hours=36),
}
"""A check whose last result is older has stopped."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How one check stands; `last` is None when it was never made."""

    kind: CheckKind
    last: LastCheck | None
    age_s: float | None
    stale: bool

    @property
    def ok(self) -> bool:
        """True when it was made lately and found nothing."""
        return not self.stale and self.last is not None and not any(self.last.alarms.values())


async def watch(engine: AsyncEngine, now: datetime, *, replay: bool) -> list[Alarm]:
    """Check, keep what was found, and return the alarms. A check that breaks keeps nothing.

    A replay checks the invariants too, and counts as a check of both kinds.
    """
    checked = await check_views(engine, replay=replay)
    by_kind: dict[CheckKind, list[Checked]] = {CheckKind.INVARIANTS: []}
    for each in checked:
        kind = CheckKind.REPLAY if each.view.startswith(REPLAYS) else CheckKind.INVARIANTS
        by_kind.setdefault(kind, []).append(each)
    async with engine.begin() as connection:
        for kind, views in by_kind.items():
            await ledger_checks.keep(connection, _last(kind, views, now))
    return [alarm for each in checked for alarm in each.alarms]


def _last(kind: CheckKind, views: Sequence[Checked], now: datetime) -> LastCheck:
    return LastCheck(
        kind=kind,
        at=now,
        took_ms=sum(each.took_ms for each in views),
        alarms={each.view: len(each.alarms) for each in views},
    )


async def read_last(engine: AsyncEngine) -> list[LastCheck]:
    """Return the last check of each kind; none of a kind that was never made."""
    async with engine.connect() as connection:
        return await ledger_checks.read(connection)


async def read_standing(engine: AsyncEngine, now: datetime) -> list[Standing]:
    """Return how each check stands."""
    found = {last.kind: last for last in await read_last(engine)}
    return [_standing(kind, found.get(kind), now) for kind in CheckKind]


def _standing(kind: CheckKind, last: LastCheck | None, now: datetime) -> Standing:
    if last is None:
        return Standing(kind, None, None, stale=True)
    age = now - last.at
    return Standing(kind, last, age.total_seconds(), stale=age > STALE_AFTER[kind])

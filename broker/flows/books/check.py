"""Asks the ledger whether all that must be true of it is true."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.errors import SettingInvalid
from broker.store.books import invariants
from broker.store.books.invariants import Alarm

INVARIANTS: Final = "invariant_"
REPLAYS: Final = "replay_"


@dataclass(frozen=True, slots=True)
class Checked:
    """One view and what it found: its alarms, at most 100 of them, in how many milliseconds."""

    view: str
    alarms: Sequence[Alarm]
    took_ms: float


async def check(engine: AsyncEngine, *, replay: bool = False) -> list[Alarm]:
    """Return every alarm; none is well. See `check_views`."""
    return [alarm for each in await check_views(engine, replay=replay) for alarm in each.alarms]


async def check_views(engine: AsyncEngine, *, replay: bool = False) -> list[Checked]:
    """Ask each view in turn, each in a statement of its own.

    The invariants fold what came after the last seal. With `replay` the records of all time are
    folded too, which proves balances, seals, holds and budgets; PostgreSQL does that within its
    `work_mem`, beyond which it folds on disk. Raises SettingInvalid where there is nothing to ask.
    """
    prefixes = (INVARIANTS, REPLAYS) if replay else (INVARIANTS,)
    checked: list[Checked] = []
    async with engine.connect() as connection:
        await invariants.go_by_the_last_seal(connection)
        for prefix in prefixes:
            for view in await invariants.view_names(connection, prefix):
                begun_s = time.perf_counter()
                alarms = await invariants.alarms_of(connection, view)
                checked.append(Checked(view, alarms, (time.perf_counter() - begun_s) * 1_000))
    if not checked:
        raise SettingInvalid("The database has no books. Bring it up with 'broker migrate'.")
    return checked

"""Asks the ledger whether all that must be true of it is true."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.store import invariants
from broker.store.invariants import Alarm


async def check(engine: AsyncEngine, *, replay: bool = False) -> list[Alarm]:
    """Return every alarm; none is well.

    The invariants fold what came after the last seal. With `replay` the entries of all time are
    folded too, which proves the seals.
    """
    prefixes = ("invariant_", "replay_") if replay else ("invariant_",)
    alarms: list[Alarm] = []
    async with engine.connect() as connection:
        for prefix in prefixes:
            for view in await invariants.view_names(connection, prefix):
                alarms += await invariants.alarms_of(connection, view)
    return alarms

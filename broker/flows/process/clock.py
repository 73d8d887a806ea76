"""Compares this process's clock with the database's, for nobody else notices which one is wrong.

A broker whose clock was wrong from its start takes every provider's signed heartbeats for old ones
or for ones of the future, and turns them away; their agents cannot know that it is not their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.flows.process.outage import Outage
from broker.store import maintenance
from broker.store.away import DATABASE_AWAY

EVERY_S: Final = 20.0
APART_S: Final = 5.0
"""Agents and brokers bear half a minute between them, and an agent has its own share of that."""
_ANSWER_S: Final = 10.0


async def watch_clock(engine: AsyncEngine, clock: Callable[[], datetime]) -> None:
    """Look again and again, until cancelled; tell the log where the clocks are apart."""
    outage = Outage(
        "clock_differs_from_the_databases",
        "clock_agrees_again",
        "signed heartbeats are turned away for it, and providers with them: set the clock of this"
        " machine or of PostgreSQL's, and restart this broker if it began with a wrong one",
    )
    while True:
        try:
            apart_s = await _apart_s(engine, clock)
            if apart_s > APART_S:
                outage.met(f"by {apart_s:.0f} s or more")
            else:
                outage.over()
        except DATABASE_AWAY:
            pass  # which others tell
        await asyncio.sleep(EVERY_S)


async def _apart_s(engine: AsyncEngine, clock: Callable[[], datetime]) -> float:
    """Return the least by which the clocks differ, however long the answer took, in seconds."""
    async with asyncio.timeout(_ANSWER_S), engine.connect() as connection:
        before = clock()
        theirs = await maintenance.time(connection)
        after = clock()
    return max((before - theirs).total_seconds(), (theirs - after).total_seconds(), 0.0)

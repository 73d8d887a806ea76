"""A broker whose clock is not the database's says so, and nothing where they agree."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from broker.flows.process.clock import watch_clock
from tests.waiting import until


async def test_a_clock_two_hours_ahead_is_told_with_what_to_do_and_one_that_agrees_is_not(
    engine: AsyncEngine,
) -> None:
    looked: list[timedelta] = []

    def clock(ahead: timedelta) -> datetime:
        looked.append(ahead)
        return datetime.now(UTC) + ahead

    clocks = [timedelta(hours=2), timedelta(hours=-2), timedelta()]
    with capture_logs() as logs:
        watches = [
            asyncio.create_task(watch_clock(engine, lambda ahead=each: clock(ahead)))  # type: ignore[misc]
            for each in clocks
        ]

        async def done() -> bool:
            return len(looked) == 2 * len(clocks) and len(logs) == 2

        await until(done)
        for watch in watches:
            watch.cancel()
        await asyncio.wait(watches)
    assert {each["event"] for each in logs} == {"clock_differs_from_the_databases"}
    assert all(int(each["error"].split()[1]) in (7_199, 7_200) for each in logs)
    assert all("set the clock" in each["advice"] for each in logs)

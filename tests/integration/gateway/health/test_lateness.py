"""How late a process comes to what is due."""

import asyncio
import contextlib
import time

import pytest

from broker.flows.process.lateness import EVERY_S, watch_lateness


class Learner:
    late_ms = 0.0


async def test_a_process_that_is_kept_from_its_work_knows_how_late_it_comes() -> None:
    learner = Learner()
    watching = asyncio.create_task(watch_lateness(time.monotonic, learner, lambda: None))
    await asyncio.sleep(0)
    time.sleep(EVERY_S + 0.2)  # noqa: ASYNC251 - it is work that keeps the loop
    while not learner.late_ms:  # noqa: ASYNC110 - it is to look by itself
        await asyncio.sleep(EVERY_S)
    worst_ms = learner.late_ms
    assert worst_ms >= 190
    async with asyncio.timeout(30):
        while learner.late_ms > worst_ms / 2:  # noqa: ASYNC110
            await asyncio.sleep(EVERY_S)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching


async def test_a_process_knows_that_it_was_halted_and_takes_no_short_delay_for_that() -> None:
    now_s, halts = 0.0, list[float]()

    def halted() -> None:
        halts.append(now_s)

    watching = asyncio.create_task(watch_lateness(lambda: now_s, Learner(), halted))
    await asyncio.sleep(0)
    for away_s in (0.5, 5.0, 0.2):
        now_s += EVERY_S + away_s
        await asyncio.sleep(2 * EVERY_S)
    assert halts == [pytest.approx(5.5 + 2 * EVERY_S)]
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching

"""How late a process comes to what is due."""

import asyncio
import contextlib
import time

from broker.flows.lateness import EVERY_S, watch_lateness


class Learner:
    late_ms = 0.0


async def test_a_process_that_is_kept_from_its_work_knows_how_late_it_comes() -> None:
    learner = Learner()
    watching = asyncio.create_task(watch_lateness(time.monotonic, learner))
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

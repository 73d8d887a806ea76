"""The time that a process that is told to stop leaves to each of what is left to do."""

from __future__ import annotations

import asyncio

from broker.flows.process.leave import LEAVE_S, Leave


class Clock:
    """A clock that is wound by hand."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


class Ledger:
    """A ledger that takes all the time that it is given, if it `hangs`."""

    def __init__(self, clock: Clock, *, hangs: bool = False) -> None:
        self.clock = clock
        self.hangs = hangs
        self.given_s = 0.0

    async def drain(self, timeout_s: float) -> None:
        self.given_s = timeout_s
        if self.hangs:
            self.clock.now_s += timeout_s


async def _hang() -> None:
    await asyncio.Event().wait()


async def _end() -> None:
    """At once."""


def _leave(clock: Clock) -> Leave:
    """With seconds as the process has them, but that nobody waits for real ones."""
    return Leave((0.02, 4.0, 0.02), clock)


async def test_tasks_that_hang_leave_the_ledger_its_time() -> None:
    for late_s in (0.0, 2.0, 20.0):
        clock = Clock()
        leave, ledger = _leave(clock), Ledger(clock)
        await leave.finish(_hang)
        clock.now_s += late_s
        await leave.finish(_hang)
        await leave.settle(ledger.drain)
        assert ledger.given_s >= 4.0


async def test_what_no_task_needs_is_for_the_ledger() -> None:
    clock = Clock()
    leave, ledger = Leave((2.0, 4.0, 2.0), clock), Ledger(clock)
    await leave.finish(_end)
    clock.now_s += 0.5
    await leave.settle(ledger.drain)
    assert ledger.given_s == 5.5


async def test_a_ledger_that_hangs_leaves_time_to_close_and_all_of_it_has_its_limit() -> None:
    clock, closed = Clock(), list[str]()
    leave, ledger = Leave(now_s=clock), Ledger(clock, hangs=True)
    await leave.finish(_end)
    await leave.settle(ledger.drain)

    async def close() -> None:
        await asyncio.sleep(0)
        closed.append("in order")

    await leave.within(close)
    assert closed == ["in order"]
    assert clock.now_s - 1_000.0 < LEAVE_S


async def test_what_hangs_is_given_up_and_what_comes_after_is_still_done() -> None:
    leave, ended = _leave(Clock()), list[str]()

    async def hang() -> None:
        try:
            await _hang()
        finally:
            ended.append("hanging")

    async def close() -> None:
        ended.append("closed")

    await leave.within(hang)
    await leave.within(close)
    assert ended == ["hanging", "closed"]

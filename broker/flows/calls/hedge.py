"""Makes an attempt and, where it is later than it mostly is, a second one beside it.

Who first has what commits the call, a whole answer or the first content of a stream, serves it. The
other is cancelled, and paid only what it has delivered by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from broker.core.call import OpenAiBody
from broker.core.dispatch import Attempt
from broker.core.metering import Delivered
from broker.flows.calls.exchange import StreamedAnswer, WholeAnswer
from broker.flows.calls.tab import Tab
from broker.upstream.faults import AttemptFailed

Answer = WholeAnswer | StreamedAnswer
Make = Callable[[Tab, Attempt], Awaitable[Answer]]
_Race = dict[asyncio.Task[Answer], Attempt]


async def race(tab: Tab, attempt: Attempt, make: Make) -> Answer:
    """Make an attempt, or two. Raises AttemptFailed when none of them answers; the last that failed
    is the caller's to end."""
    after_s = tab.late_after_s(attempt)
    if after_s is None:
        return await make(tab, attempt)
    running: _Race = {asyncio.ensure_future(make(tab, attempt)): attempt}
    try:
        done, _ = await asyncio.wait(running, timeout=after_s)
        if not done:
            hedge = tab.begin_hedge()
            if hedge is not None:
                running[asyncio.ensure_future(make(tab, hedge))] = hedge
        return await _first(tab, running)
    finally:
        for task in list(running):
            await _cut(task)


async def _first(tab: Tab, running: _Race) -> Answer:
    """Wait for the first answer; of two the other is cut and ended."""
    while True:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            failure = task.exception()
            if failure is None:
                winner = running.pop(task)
                for other, loser in running.items():
                    tab.win(winner, loser, _delivered(await _cut(other), tab))
                running.clear()
                return task.result()
            if len(running) == 1 or not isinstance(failure, AttemptFailed):
                raise failure
            tab.end_one(running.pop(task), failure.outcome)
            if tab.dispatch.end is not None:  # no other would do better
                raise failure


async def _cut(task: asyncio.Task[Answer]) -> Answer | None:
    """Cancel an attempt; return its answer, should it have come nevertheless."""
    task.cancel()
    await asyncio.wait([task])
    if task.cancelled() or task.exception() is not None:
        return None
    answer = task.result()
    if isinstance(answer, StreamedAnswer):
        answer.response.abort()
    return answer


def _delivered(answer: Answer | None, tab: Tab) -> Delivered | None:
    if answer is None or isinstance(answer, WholeAnswer):
        return None if answer is None else answer.delivered
    body = tab.call.body
    assert isinstance(body, OpenAiBody)
    return answer.reader.delivered(body.choices, complete=answer.reader.ended)

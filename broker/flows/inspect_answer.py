"""Looks at some of the answers to `auto` for flaws of form, which are evidence of who gave them.

One in so many is looked at, beside the calls; a flaw counts as if all had been, and so does none.
Callers write what answers are held against, so each gets a few looks at an endpoint a day.
"""

from __future__ import annotations

import asyncio
from typing import Final

from broker.core.answer_checks import find_flaw
from broker.core.call import OpenAiBody
from broker.core.columns import AUTO
from broker.core.evidence import Grade, Piece, Source
from broker.flows.tab import Tab

INSPECTED: Final = 0.25
"""The share of answers that is looked at."""
PASSED_KEPT: Final = 0.2
"""The share of those without a flaw that is written down; a flaw weighs that much of them."""
_ANSWER_BYTES_MAX: Final = 262_144


def is_drawn(tab: Tab) -> bool:
    """True where the lot falls on a call to `auto` for its answer to be looked at."""
    return tab.call.wanted.model == AUTO and tab.runtime.random.random() < INSPECTED


def inspect(tab: Tab, answer: bytes) -> None:
    """Look at a whole answer that was drawn, without anybody's waiting for it."""
    runtime, body = tab.runtime, tab.call.body
    if not (isinstance(body, OpenAiBody) and tab.call.wanted.task.generates):
        return
    if len(answer) > _ANSWER_BYTES_MAX:
        return
    # Before anything is found, so that flaws and none are rationed alike.
    if not runtime.looks.take(tab.call.payer.account_id, tab.endpoint.number, runtime.clock()):
        return
    task = asyncio.get_running_loop().create_task(_look(tab, body, answer))
    runtime.running.add(task)
    task.add_done_callback(runtime.running.discard)


async def _look(tab: Tab, body: OpenAiBody, answer: bytes) -> None:
    flaw = await asyncio.to_thread(find_flaw, body.members, answer)
    runtime = tab.runtime
    if flaw is None and runtime.random.random() >= PASSED_KEPT:
        return
    runtime.heard.append(
        Piece(
            at=runtime.clock(),
            endpoint_id=tab.endpoint.id,
            source=Source.CHECK,
            grade=Grade.BINARY,
            score=float(flaw is None),
            domain=tab.call.wanted.domain,
            weight=1.0 if flaw is None else PASSED_KEPT,
            account_id=tab.call.payer.account_id,
            call_id=tab.call.id,
        )
    )

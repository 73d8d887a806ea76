"""Compares receipts with calls, and opens a case for each difference; it moves no money.

A call is compared once it is surely over: after a grace that is longer than it may wait for its
hold, and not while its hold is open. A receipt that comes after that has its call compared again,
and closes the case of its absence.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.money.receipts import ComparedCall, compare
from broker.store.quality.examinations import without_test_calls
from broker.store.receipts import receipt_cases, receipt_facts, receipt_horizon
from broker.store.receipts.receipt_cases import Case
from broker.store.webhooks.events import Event, tell

GRACE: Final = timedelta(minutes=70)
PAGE: Final = 500
"""Calls compared in one transaction."""
CAME_LATE: Final = "The receipt has come since."

_log = structlog.get_logger(__name__)


async def reconcile(engine: AsyncEngine, now: datetime, grace: timedelta = GRACE) -> list[Case]:
    """Compare all calls begun before `now - grace` that were not yet, and those with late receipts.

    Returns the cases that were opened.
    """
    async with engine.begin() as connection:
        await receipt_horizon.claim(connection, now - grace)
    opened: list[Case] = []
    more = True
    while more:
        async with engine.begin() as connection:
            more = await _next_page(connection, opened, now)
    more = True
    while more:
        async with engine.begin() as connection:
            more = await _late_page(connection, opened, now)
    if opened:
        _log.warning("receipt_cases_opened", count=len(opened))
    return opened


async def _next_page(connection: AsyncConnection, opened: list[Case], now: datetime) -> bool:
    """Compare the next calls below the horizon; whether there may be more."""
    horizon = await receipt_horizon.lock(connection)
    call_ids = await receipt_horizon.candidates(connection, horizon, PAGE)
    opened += await _compare(connection, call_ids, now)
    if len(call_ids) < PAGE:
        await receipt_horizon.advance(connection, horizon.claimed)
        return False
    await receipt_horizon.advance(connection, UUID(int=call_ids[-1].int + 1))
    return True


async def _late_page(connection: AsyncConnection, opened: list[Case], now: datetime) -> bool:
    """Compare calls once more whose receipts came late; whether there may be more."""
    await receipt_horizon.lock(connection)
    call_ids = await receipt_horizon.take_late(connection, PAGE)
    opened += await _compare(connection, call_ids, now)
    return len(call_ids) == PAGE


async def _compare(
    connection: AsyncConnection, call_ids: Sequence[UUID], now: datetime
) -> list[Case]:
    # What the broker asked for itself is billed to nobody, so a receipt of it is no surprise.
    ours = await without_test_calls(connection, call_ids)
    compared = await receipt_facts.load(connection, ours)
    await _close_answered(connection, compared, now)
    found = [(call.id, difference) for call in compared for difference in compare(call)]
    opened = await receipt_cases.open_cases(connection, found, now) if found else []
    for case in opened:
        await tell(connection, event_of("receipt_case.opened", case), now)
    return opened


async def _close_answered(
    connection: AsyncConnection, compared: Sequence[ComparedCall], now: datetime
) -> None:
    places = [(call.id, *said.place) for call in compared for said in call.said]
    answered = await receipt_cases.find_answered(connection, places) if places else []
    if answered:
        end = (answered, "broker", CAME_LATE, now)
        for case in await receipt_cases.close_cases(connection, *end):
            await tell(connection, event_of("receipt_case.closed", case), now)


def event_of(kind: str, case: Case) -> Event:
    """Return what is told of a case."""
    payload: dict[str, object] = {
        "kind": case.kind.value,
        "deployment": case.deployment,
        "call_id": str(case.call_id),
        "attempt": case.attempt,
        "detail": case.detail,
    }
    if case.closed_at is not None:
        payload |= {"closed_by": case.closed_by, "reason": case.close_reason}
    return Event(kind, f"receipt_cases/{case.id}", case.provider_id, payload)

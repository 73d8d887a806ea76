"""Ends disputes: providers answer, silence counts for the consumer, operators decide the rest."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.money.refund import apportion, left_of
from broker.errors import BrokerError, Conflict, RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.flows.money.dispute import closed_already, no_such_dispute, note_deed, reread
from broker.flows.money.refund import Order, give_back, open_call
from broker.flows.money.wording import checked_reason
from broker.store.money import disputes
from broker.store.money.disputes import Answer, Dispute, Part, Status, Verdict
from pricing.money import format_usd

CLOCK: Final = "broker"
"""Who decides when a provider's time is over."""

_log = structlog.get_logger()


async def accept(
    connection: AsyncConnection, caller: Caller, dispute_id: UUID, words: str, now: datetime
) -> Dispute:
    """A provider gives back what is asked of it. Raises as `contest` does but for the time."""
    dispute, part = await _waiting_part(connection, caller, dispute_id)
    words = checked_reason(words) if words else ""
    await _refund_part(connection, dispute, part, (part.asked_nanos, caller.name), now)
    return await _answered(connection, caller, dispute, (Answer.ACCEPTED, words), now)


async def contest(
    connection: AsyncConnection, caller: Caller, dispute_id: UUID, words: str, now: datetime
) -> Dispute:
    """A provider says why it gives nothing back; an operator will decide.

    Raises NotFound for a dispute that does not concern the caller, RequestMalformed without words,
    Conflict with code `dispute_closed`, `dispute_answered`, `dispute_overdue`.
    """
    words = checked_reason(words)
    dispute, _ = await _waiting_part(connection, caller, dispute_id)
    if now >= dispute.answer_by:
        raise Conflict("The time to contest it is over.", code="dispute_overdue")
    return await _answered(connection, caller, dispute, (Answer.CONTESTED, words), now)


async def decide(
    connection: AsyncConnection,
    author: Caller,
    dispute_id: UUID,
    ruling: tuple[Verdict, int | None, str],
    now: datetime,
) -> Dispute:
    """An operator decides what was contested: `ruling` is the verdict, how much of it goes back
    (all of what is contested where None), and the reason.

    Raises NotFound; RequestMalformed for bad words, an amount that is not above zero, or one beside
    a rejection (`amount_out_of_bounds`); Conflict with code `refund_too_large`, `dispute_closed`,
    `dispute_not_contested`.
    """
    verdict, amount_nanos, words = ruling
    words = checked_reason(words)
    dispute = await disputes.lock(connection, dispute_id)
    if dispute is None:
        raise no_such_dispute()
    _refuse_undecidable(dispute)
    contested = dispute.having(Answer.CONTESTED)
    amount = _upheld(verdict, amount_nanos, contested)
    shares = apportion(amount, [each.asked_nanos for each in contested])
    for part, share in zip(contested, shares, strict=True):
        await _refund_part(connection, dispute, part, (share, author.name), now)
    await disputes.set_status(
        connection,
        dispute_id,
        status=Status.DECIDED.value,
        closed_at=now,
        verdict=verdict.value,
        verdict_words=words,
    )
    await note_deed(connection, author.name, f"{verdict.value}_dispute", dispute, now)
    return await reread(connection, dispute, "decided", now)


async def decide_overdue(engine: AsyncEngine, now: datetime, at_once: int = 500) -> int:
    """Decide for the consumer where providers were silent, the oldest dispute first and each in a
    transaction of its own; return how many. They are looked up `at_once` at a time."""
    decided, after = 0, None
    while True:
        async with engine.connect() as connection:
            due = await disputes.overdue(connection, now, after, at_once)
        for dispute_id, _ in due:
            try:
                decided += await _decide_overdue(engine, dispute_id, now)
            except (BrokerError, DBAPIError) as error:
                # One that cannot be decided must not keep all others waiting.
                _log.error("dispute_not_decided", dispute=str(dispute_id), error=str(error))
        if len(due) < at_once:
            return decided
        after = due[-1]


async def _decide_overdue(engine: AsyncEngine, dispute_id: UUID, now: datetime) -> bool:
    async with engine.begin() as connection:
        dispute = await disputes.lock_overdue(connection, dispute_id, now)
        if dispute is None:
            return False
        for part in dispute.having(Answer.WAITING):
            await _refund_part(connection, dispute, part, (part.asked_nanos, CLOCK), now)
            said = (Answer.OVERDUE, "")
            await disputes.answer(connection, dispute_id, part.provider_id, said, now)
        await note_deed(connection, CLOCK, "decide_overdue_dispute", dispute, now)
        await _move_on(connection, dispute_id, now)
        await reread(connection, dispute, "overdue", now)
    return True


async def _waiting_part(
    connection: AsyncConnection, caller: Caller, dispute_id: UUID
) -> tuple[Dispute, Part]:
    dispute = await disputes.lock(connection, dispute_id)
    own = (
        [each for each in dispute.parts if each.provider_id == caller.account_id] if dispute else []
    )
    if dispute is None or not own:
        raise no_such_dispute()
    if own[0].answer is not Answer.WAITING:
        raise Conflict("You have answered.", code="dispute_answered")
    if dispute.status is not Status.OPEN:
        raise closed_already()
    return dispute, own[0]


async def _answered(
    connection: AsyncConnection,
    caller: Caller,
    dispute: Dispute,
    said: tuple[Answer, str],
    now: datetime,
) -> Dispute:
    await disputes.answer(connection, dispute.id, caller.account_id, said, now)
    await _move_on(connection, dispute.id, now)
    await note_deed(connection, caller.name, f"{said[0].value}_dispute", dispute, now)
    return await reread(connection, dispute, "answered", now)


async def _move_on(connection: AsyncConnection, dispute_id: UUID, now: datetime) -> None:
    """Once nobody is waited for: to the operator when a part is contested, else to its end."""
    dispute = await disputes.find(connection, dispute_id)
    assert dispute is not None, "a dispute is never deleted"
    if dispute.having(Answer.WAITING):
        return
    if dispute.having(Answer.CONTESTED):
        await disputes.set_status(connection, dispute_id, status=Status.CONTESTED.value)
    else:
        await disputes.set_status(
            connection, dispute_id, status=Status.DECIDED.value, closed_at=now
        )


async def _refund_part(
    connection: AsyncConnection,
    dispute: Dispute,
    part: Part,
    ordered: tuple[int, str],
    at: datetime,
) -> None:
    """Give back an amount of a part's lines, by an author, as far as it is still there.

    A refund by hand may have come between: what has gone back already does not go back again.
    """
    amount_nanos, author = ordered
    call = await open_call(connection, dispute.call_id, {part.provider_id})
    amount_nanos = min(amount_nanos, left_of(call.lines))
    if not amount_nanos:
        return
    order = Order(amount_nanos, dispute.reason, author, at, dispute_id=dispute.id)
    await give_back(connection, call, order)
    await disputes.add_refunded(connection, dispute.id, part.provider_id, amount_nanos)


def _refuse_undecidable(dispute: Dispute) -> None:
    if dispute.status is Status.OPEN:
        until = f"{dispute.answer_by:%Y-%m-%d %H:%M}"
        raise Conflict(
            f"The providers have until {until} UTC to answer.", code="dispute_not_contested"
        )
    if dispute.status is not Status.CONTESTED:
        raise closed_already()


def _upheld(verdict: Verdict, amount_nanos: int | None, contested: Collection[Part]) -> int:
    """Return how much an operator's verdict gives back."""
    whole = sum(each.asked_nanos for each in contested)
    if verdict is Verdict.REJECTED:
        if amount_nanos is not None:
            raise RequestMalformed("A rejection has no amount.", code="amount_out_of_bounds")
        return 0
    wanted = whole if amount_nanos is None else amount_nanos
    if wanted <= 0:
        raise RequestMalformed("An amount is above zero.", code="amount_out_of_bounds")
    if wanted > whole:
        raise Conflict(
            f"{format_usd(whole)} USD are contested.",
            code="refund_too_large",
            facts={"refundable_usd": format_usd(whole)},
        )
    return wanted

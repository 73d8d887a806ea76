"""Records what became of a payout: it was sent, it failed, or it came back later.

    open ─► sent ─► returned        each once: said again it changes nothing,
      └───► failed                  said in another order it is refused by name

Money of a payout that failed or came back is available again: the transfer that brought it is an
item like any other, so the next payout pays it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.core.money.payout import Method
from broker.errors import Conflict, RequestMalformed
from broker.flows.money.pay_out import told
from broker.flows.money.topup import REASON_MAX_CHARACTERS
from broker.store.access import audit
from broker.store.books import transfers
from broker.store.books.transfers import Transfer, TransferKind
from broker.store.money import payouts
from broker.store.money.payouts import Payout, PayoutStatus
from broker.store.money.purses import purse_of
from broker.store.webhooks import events

_BEFORE: Final = {
    PayoutStatus.SENT: PayoutStatus.OPEN,
    PayoutStatus.FAILED: PayoutStatus.OPEN,
    PayoutStatus.RETURNED: PayoutStatus.SENT,
}
_KINDS: Final = {
    PayoutStatus.SENT: TransferKind.PAYOUT_SENT,
    PayoutStatus.FAILED: TransferKind.PAYOUT_FAILED,
    PayoutStatus.RETURNED: TransferKind.PAYOUT_RETURNED,
}
_DEEDS: Final = {
    PayoutStatus.SENT: "confirm_payout",
    PayoutStatus.FAILED: "fail_payout",
    PayoutStatus.RETURNED: "return_payout",
}


@dataclass(frozen=True, slots=True)
class Word:
    """Who says what became of a payout, and why; `reference` is the bank's or the service's own.

    `checked` says that a service that was asked to pay has been seen not to have paid.
    """

    author: str
    reason: str = ""
    reference: str = ""
    checked: bool = False


async def confirm(
    connection: AsyncConnection, payout_id: UUID, word: Word, now: datetime
) -> Payout:
    """The money has gone out: from transit to the world.

    Raises NotFound, and Conflict with code `payout_failed` or `payout_returned`.
    """
    return await _step(connection, payout_id, PayoutStatus.SENT, word, now)


async def fail(connection: AsyncConnection, payout_id: UUID, word: Word, now: datetime) -> Payout:
    """The money will not go out: from transit back to what is available.

    Raises RequestMalformed without a reason, NotFound, and Conflict with code `payout_sent`,
    `payout_returned` or, where a service was asked and may have paid, `payout_submitted`.
    """
    _require_reason(word)
    payout = await payouts.lock(connection, payout_id)
    asked = payout.place.method is Method.STRIPE and payout.submitted_at is not None
    if asked and not word.checked and payout.status is PayoutStatus.OPEN:
        raise Conflict(
            "Stripe was asked to pay this and may have done so. Look there first, then say "
            "'checked'.",
            code="payout_submitted",
        )
    return await _step(connection, payout_id, PayoutStatus.FAILED, word, now)


async def give_back(
    connection: AsyncConnection, payout_id: UUID, word: Word, now: datetime
) -> Payout:
    """The money had gone out and came back: from the world to what is available.

    Raises RequestMalformed without a reason, NotFound, and Conflict with code `payout_open` or
    `payout_failed`.
    """
    _require_reason(word)
    return await _step(connection, payout_id, PayoutStatus.RETURNED, word, now)


def _require_reason(word: Word) -> None:
    if not word.reason.strip():
        raise RequestMalformed("Say why: 'reason' is empty.", code="reason_missing")
    if len(word.reason) > REASON_MAX_CHARACTERS:
        raise RequestMalformed(
            f"A reason has at most {REASON_MAX_CHARACTERS} characters.", code="reason_too_long"
        )


async def _step(
    connection: AsyncConnection, payout_id: UUID, to: PayoutStatus, word: Word, now: datetime
) -> Payout:
    payout = await payouts.lock(connection, payout_id)
    if payout.status is to:
        return payout
    if payout.status is not _BEFORE[to]:
        raise Conflict(
            f"The payout is {payout.status}; only one that is {_BEFORE[to]} can be {to}.",
            code=f"payout_{payout.status}",
        )
    await _move(connection, payout, to, word, now)
    await payouts.set_status(connection, payout.id, to, word.reference)
    await events.tell(connection, told(f"payout.{to}", payout, word.reason), now)
    detail = {"reason": word.reason, "reference": word.reference, "number": payout.number}
    deed = audit.Deed(word.author, _DEEDS[to], f"payouts/{payout.id}", detail)
    await audit.record(connection, deed, now)
    return await payouts.find(connection, payout.id)


async def _move(
    connection: AsyncConnection, payout: Payout, to: PayoutStatus, word: Word, now: datetime
) -> None:
    held = await purse_of(connection, payout.provider_id)
    world = await transfers.world(connection)
    debit, credit = {
        PayoutStatus.SENT: (held.transit, world),
        PayoutStatus.FAILED: (held.transit, held.available),
        PayoutStatus.RETURNED: (world, held.available),
    }[to]
    transfer = Transfer(
        id=uuid7(),
        debit=debit,
        credit=credit,
        amount_nanos=payout.amount_nanos,
        kind=_KINDS[to],
        reason=word.reason or f"payout {payout.number}",
        author=word.author,
        created_at=now,
        about_id=payout.id,
    )
    await transfers.post(connection, transfer)

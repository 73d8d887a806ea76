"""Takes a batch of signed receipts: believes each on its own, and keeps it as it was signed.

A receipt is believed when a key of its deployment signed it; the broker has only the public half,
so it can make none itself. One that comes again is a duplicate and does no harm; another text for
the same attempt, or the same number on another receipt, is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import RFC_4122, UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.money.proof import is_signed_by
from broker.core.money.receipts import CLOCK_SKEW
from broker.flows.access.authenticate import Caller
from broker.store.receipts import receipt_horizon, receipt_keys, signed
from broker.store.receipts.receipt_keys import PublicKey
from broker.store.receipts.signed import KeptReceipt, time_of
from provider_sdk.protocol import (
    Receipt,
    ReceiptBatch,
    ReceiptDoubt,
    ReceiptReply,
    ReceiptResult,
    SignedReceipt,
)
from provider_sdk.signing import receipt_message

LATE_MAX: Final = timedelta(days=7)
"""A receipt of an older call is not taken any more."""
FORMER_KEY_GOOD: Final = timedelta(hours=1)
"""So long after it was retired, a key may still have signed what was on its way."""

_KEPT: Final = ReceiptResult(kept=True)
_DUPLICATE: Final = ReceiptResult(kept=True, reason="duplicate")


async def receive(
    engine: AsyncEngine, provider: Caller, batch: ReceiptBatch, now: datetime
) -> ReceiptReply:
    """Take a batch of a provider's; each receipt has its own result, in the same order."""
    async with engine.connect() as connection:
        keys = await receipt_keys.of_provider(connection, provider.account_id)
    examined: list[KeptReceipt | ReceiptDoubt] = []
    for each in batch.receipts:
        examined.append(examine(each, keys.get(each.key_id), now))
        await asyncio.sleep(0)  # a signature takes a moment, after which calls shall go on
    good = [each for each in examined if isinstance(each, KeptReceipt)]
    results = iter(await _keep(engine, good, now) if good else ())
    return ReceiptReply(
        results=[
            next(results)
            if isinstance(each, KeptReceipt)
            else ReceiptResult(kept=False, reason=each)
            for each in examined
        ]
    )


def examine(
    sent: SignedReceipt, key: PublicKey | None, now: datetime
) -> KeptReceipt | ReceiptDoubt:
    """Return the receipt inside, or the reason not to believe it; `key` is the one it names."""
    if key is None or (key.retired_at is not None and now > key.retired_at + FORMER_KEY_GOOD):
        return "unknown_key"
    if sent.deployment_id != str(key.deployment_id):
        return "foreign"
    signature = bytes.fromhex(sent.signature)
    if not is_signed_by(key.public_key, receipt_message(sent.receipt_json), signature):
        return "bad_signature"
    try:
        receipt = msgspec.json.decode(sent.receipt_json, type=Receipt)
    except (msgspec.DecodeError, UnicodeError):
        return "malformed"
    if receipt.deployment_id != sent.deployment_id:
        return "foreign"
    call_id = _call_id(receipt.call_id)
    if call_id is None or "\0" in receipt.model or time_of(call_id) > now + CLOCK_SKEW:
        return "malformed"
    if time_of(call_id) < now - LATE_MAX:
        return "too_late"
    return KeptReceipt(
        call_id, key.deployment_id, key.id, receipt, sent.receipt_json, signature, now
    )


def _call_id(text: str) -> UUID | None:
    """The id of a call, if it can be one: a UUIDv7 of a year that there is."""
    try:
        call_id = UUID(text)
        time_of(call_id)
    except (ValueError, OverflowError):
        return None
    is_v7 = call_id.variant == RFC_4122 and call_id.version == 7
    return call_id if is_v7 else None


async def _keep(
    engine: AsyncEngine, good: Sequence[KeptReceipt], now: datetime
) -> list[ReceiptResult]:
    """Write those that are new, and note the calls that have been compared already."""
    async with engine.begin() as connection:
        await receipt_keys.lock_all_of(connection, {each.deployment_id for each in good})
        await signed.announce(connection)
        results, fresh = await _sort(connection, good, now - LATE_MAX)
        await signed.insert_receipts(connection, fresh)
        await receipt_horizon.note_late(connection, {each.call_id for each in fresh})
    return results


async def _sort(
    connection: AsyncConnection, good: Sequence[KeptReceipt], since: datetime
) -> tuple[list[ReceiptResult], list[KeptReceipt]]:
    """Return the result of each, and those to be written."""
    there = await signed.texts_at(connection, {each.place for each in good}, since)
    numbered = {(each.deployment_id, each.receipt.sequence) for each in good}
    taken = await signed.numbers_taken(connection, numbered, since)
    results: list[ReceiptResult] = []
    fresh: list[KeptReceipt] = []
    for each in good:
        number = (each.deployment_id, each.receipt.sequence)
        former = there.get(each.place)
        if former is not None:
            same = former == each.receipt_json
            results.append(_DUPLICATE if same else ReceiptResult(kept=False, reason="contradicts"))
        elif number in taken:
            results.append(ReceiptResult(kept=False, reason="sequence_reused"))
        else:
            there[each.place], taken[number] = each.receipt_json, each.place
            fresh.append(each)
            results.append(_KEPT)
    return results, fresh

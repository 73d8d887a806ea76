"""The recipes of the books: what a hold, a settlement and its lines are, and what must hold.

Two phases: a hold reserves the ceiling of a call, a settlement captures what was used and releases
the rest. A call is settled once, for at most what was held. Amounts are nano-dollars, times UTC.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from pricing.book import Rate
from pricing.money import charge_nanos, split


class Hold(msgspec.Struct, frozen=True, gc=False):
    """A reservation on a consumer's funds for one call."""

    call_id: UUID
    account: UUID
    """The ledger account that pays."""
    key_id: str
    amount_nanos: int
    created_at: datetime
    expires_at: datetime


class SettlementKind(enum.StrEnum):
    """How a hold ended."""

    CAPTURED = "captured"
    RELEASED = "released"
    EXPIRED = "expired"


_CAPTURED: Final = SettlementKind.CAPTURED
"""Found sooner than a member of its enum, as each call does it."""


class ChargeLine(msgspec.Struct, frozen=True, gc=False):
    """What one attempt delivered and what it costs: `charge = take + earnings`."""

    attempt: int
    endpoint_id: UUID
    payee: UUID
    tokens_in: int
    tokens_out: int
    rate: Rate
    price_version: int
    charge_nanos: int
    take_nanos: int
    earnings_nanos: int


class CallRecord(msgspec.Struct, frozen=True, gc=False):
    """One row of the call log: what was asked, where it went, what it cost; never what was said."""

    id: UUID
    created_at: datetime
    account_id: UUID
    key_id: str
    task: str
    model: str
    domain: str | None
    stream: bool
    status: int
    code: str
    endpoint_number: int | None
    price_version: int
    hold_nanos: int
    charge_nanos: int
    tokens_in: int
    tokens_out: int
    ttft_ms: float | None
    duration_ms: float
    task_label: str | None
    session_id: str | None
    labels_json: str | None
    story: bytes
    answer_tokens_out: int | None = None
    """Of one whole answer, as `broker.core.quality.lengths.length_of` has it."""


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """The end of a call's hold, its lines, and the record written in the same transaction."""

    call_id: UUID
    kind: SettlementKind
    charge_nanos: int
    settled_at: datetime
    lines: tuple[ChargeLine, ...]
    record: CallRecord | None


def line(
    attempt: int,
    endpoint_id: UUID,
    payee: UUID,
    tokens: tuple[int, int],
    terms: tuple[Rate, int, int],
) -> ChargeLine:
    """Price one attempt: `tokens` are (in, out), `terms` (rate, price version, take in bps)."""
    tokens_in, tokens_out = tokens
    rate, version, take_bps = terms
    charge = charge_nanos(rate.picos(tokens_in, tokens_out))
    take, earnings = split(charge, take_bps)
    return ChargeLine(
        attempt, endpoint_id, payee, tokens_in, tokens_out, rate, version, charge, take, earnings
    )


def settlement(
    hold: Hold, lines: tuple[ChargeLine, ...], settled_at: datetime, record: CallRecord | None
) -> Settlement:
    """Close a hold with what was delivered: captured when something costs, else released."""
    if len(lines) == 1:
        charge = lines[0].charge_nanos
    else:
        charge = sum(each.charge_nanos for each in lines)
        lines = tuple(each for each in lines if each.charge_nanos)
    assert charge <= hold.amount_nanos, "a charge is never above its hold"
    if not charge:
        return Settlement(hold.call_id, SettlementKind.RELEASED, 0, settled_at, (), record)
    return Settlement(hold.call_id, _CAPTURED, charge, settled_at, lines, record)

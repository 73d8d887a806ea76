"""Compares what the broker billed of a call with what its providers' signed receipts say.

A difference is shown, never settled here: a receipt is the provider's word, a settlement line the
broker's. Clocks of different machines are trusted to `CLOCK_SKEW`, counts to `TOLERANCE_TOKENS` or
`TOLERANCE_SHARE`, whichever is more, for the broker may have counted or estimated on its own.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from pricing.money import format_usd

TOLERANCE_TOKENS: Final = 16
TOLERANCE_SHARE: Final = 0.02
CLOCK_SKEW: Final = timedelta(seconds=30)
DURATION_SLACK: Final = timedelta(seconds=2)
"""What a provider may have been busy longer than the whole call took: connections end slowly."""

Place = tuple[int, UUID]
"""The number of an attempt, and the deployment it was made at."""


class CaseKind(enum.StrEnum):
    """How the broker's records and a receipt differ."""

    NO_RECEIPT = "no_receipt"
    UNKNOWN_CALL = "unknown_call"
    NOT_BILLED = "not_billed"
    NOT_SERVED = "not_served"
    COUNTS_DIFFER = "counts_differ"
    TIMES_IMPOSSIBLE = "times_impossible"


MEANINGS: Final[Mapping[CaseKind, str]] = {
    CaseKind.NO_RECEIPT: "The broker billed an attempt of which the provider sent no receipt.",
    CaseKind.UNKNOWN_CALL: "A receipt is of a call that the broker did not send there.",
    CaseKind.NOT_BILLED: "A receipt is of a whole answer that the broker did not bill.",
    CaseKind.NOT_SERVED: "The broker billed an attempt that by the receipt failed.",
    CaseKind.COUNTS_DIFFER: "The receipt counts other tokens than the broker billed.",
    CaseKind.TIMES_IMPOSSIBLE: "The times in the receipt cannot be.",
}


class Billed(msgspec.Struct, frozen=True):
    """A settlement line: what an attempt was charged for."""

    place: Place
    tokens_in: int
    tokens_out: int
    charge_nanos: int


class Said(msgspec.Struct, frozen=True):
    """What a receipt says."""

    place: Place
    status: int | None
    whole: bool
    tokens_in: int | None
    tokens_out: int | None
    bytes_out: int
    started_at: datetime
    first_byte_at: datetime | None
    ended_at: datetime


class ComparedCall(msgspec.Struct, frozen=True):
    """All that is known of a call that has ended."""

    id: UUID
    begun_at: datetime
    """By the call's id."""
    settled_at: datetime | None
    """None for a call of which the broker knows nothing, or that it refused."""
    tried: Mapping[Place, str] | None
    """How each attempt came out; None when the broker died before it could tell."""
    billed: tuple[Billed, ...]
    said: tuple[Said, ...]
    promised: frozenset[UUID]
    """The deployments that sign receipts for calls of that time."""


class Difference(msgspec.Struct, frozen=True):
    """One case to be opened; `detail` holds JSON values."""

    kind: CaseKind
    place: Place
    detail: Mapping[str, object]


def compare(call: ComparedCall) -> list[Difference]:
    """Return all that differs; nothing when both sides say the same."""
    said = {each.place: each for each in call.said}
    differences = [
        Difference(CaseKind.NO_RECEIPT, line.place, _billed(line))
        for line in call.billed
        if line.place not in said and line.place[1] in call.promised
    ]
    lines = {line.place: line for line in call.billed}
    for place, receipt in said.items():
        differences += _judged(call, receipt, lines.get(place))
    return differences


def _judged(call: ComparedCall, receipt: Said, line: Billed | None) -> Iterator[Difference]:
    place = receipt.place
    if line is not None:
        if receipt.status != 200:
            yield Difference(CaseKind.NOT_SERVED, place, _billed(line) | {"status": receipt.status})
        counts = _other_counts(line, receipt)
        if counts:
            yield Difference(CaseKind.COUNTS_DIFFER, place, counts)
        faults = _impossible(call, receipt)
        if faults:
            yield Difference(CaseKind.TIMES_IMPOSSIBLE, place, _times(receipt) | {"faults": faults})
    elif call.settled_at is None or (call.tried is not None and place not in call.tried):
        yield Difference(CaseKind.UNKNOWN_CALL, place, _served(receipt))
    elif receipt.status == 200 and receipt.whole and _delivered(receipt):
        outcome = "broker_died" if call.tried is None else call.tried[place]
        yield Difference(CaseKind.NOT_BILLED, place, _served(receipt) | {"outcome": outcome})


def _delivered(receipt: Said) -> bool:
    """True when there was something to pay for: an answer without a token costs nothing."""
    return bool(receipt.bytes_out if receipt.tokens_out is None else receipt.tokens_out)


def _other_counts(line: Billed, receipt: Said) -> dict[str, object]:
    pairs = {
        "tokens_in": (line.tokens_in, receipt.tokens_in),
        "tokens_out": (line.tokens_out, receipt.tokens_out),
    }
    return {
        name: {"billed": billed, "receipt": said}
        for name, (billed, said) in pairs.items()
        if said is not None and _differ(billed, said)
    }


def _differ(billed: int, said: int) -> bool:
    return abs(billed - said) > max(TOLERANCE_TOKENS, TOLERANCE_SHARE * max(billed, said))


def _impossible(call: ComparedCall, receipt: Said) -> list[str]:
    """What cannot be of the times in a receipt of a call that was billed."""
    assert call.settled_at is not None, "what is billed is settled"
    begun, ended = receipt.started_at, receipt.ended_at
    first = receipt.first_byte_at or begun
    longest = call.settled_at - call.begun_at + DURATION_SLACK
    faults = {
        "out_of_order": not begun <= first <= ended,
        "before_the_call": begun < call.begun_at - CLOCK_SKEW,
        "after_the_call": ended > call.settled_at + CLOCK_SKEW,
        "longer_than_the_call": ended - begun > longest,
    }
    return [name for name, is_so in faults.items() if is_so]


def _billed(line: Billed) -> dict[str, object]:
    return {
        "tokens_in": line.tokens_in,
        "tokens_out": line.tokens_out,
        "charge_usd": format_usd(line.charge_nanos),
    }


def _served(receipt: Said) -> dict[str, object]:
    return {
        "status": receipt.status,
        "tokens_in": receipt.tokens_in,
        "tokens_out": receipt.tokens_out,
        "bytes_out": receipt.bytes_out,
    }


def _times(receipt: Said) -> dict[str, object]:
    times = {
        "started_at": receipt.started_at,
        "first_byte_at": receipt.first_byte_at,
        "ended_at": receipt.ended_at,
    }
    return {name: at and at.isoformat() for name, at in times.items()}

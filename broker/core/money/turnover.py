"""What the calls of one process came to, by task: how long they took, their tokens, their money.

Sums that only rise. They are told of a call once what it ended with is durable, so that the money
is what the books have, and nothing is counted while calls are served.
"""

from __future__ import annotations

from typing import Final

import msgspec

from broker.core.health.durations import CALL_BOUNDS_S, Durations
from broker.core.ledger import CallRecord, Settlement

UNRECORDED: Final = "unrecorded"
"""The task of money whose call's record could not be written."""
_LEFT: Final = "caller_left"
_SERVED: Final = "served"
_REFUSED: Final = range(400, 500)


class Sums(msgspec.Struct, gc=False):
    """Of one task; amounts are nano-dollars."""

    charged_nanos: int = 0
    take_nanos: int = 0
    earnings_nanos: int = 0
    tokens_in: int = 0
    """Of all attempts, whether or not they were paid."""
    tokens_out: int = 0


class Turnover:
    """Told of each call once."""

    def __init__(self) -> None:
        self.sums: dict[str, Sums] = {}
        self.lasted: dict[tuple[str, str], Durations] = {}
        """Calls by task and outcome, see `outcome_of`."""
        self.first_content: dict[str, Durations] = {}
        """Of streams that had content, by task."""

    def settled(self, settlement: Settlement, waited_s: float) -> None:
        """Be told of a call whose hold was closed, `waited_s` after it was asked for."""
        record = settlement.record
        if settlement.charge_nanos:
            sums = self._sums_of(UNRECORDED if record is None else record.task)
            sums.charged_nanos += settlement.charge_nanos
            for line in settlement.lines:
                sums.take_nanos += line.take_nanos
                sums.earnings_nanos += line.earnings_nanos
        if record is not None:
            self.ended(record, waited_s)

    def ended(self, record: CallRecord, waited_s: float = 0.0) -> None:
        """Be told of a call that has ended, other than of its money."""
        task = record.task
        sums = self._sums_of(task)
        sums.tokens_in += record.tokens_in
        sums.tokens_out += record.tokens_out
        place = task, outcome_of(record.status, record.code)
        lasted = self.lasted.get(place)
        if lasted is None:
            lasted = self.lasted[place] = Durations(CALL_BOUNDS_S)
        lasted.add(record.duration_ms / 1_000 + waited_s)
        if record.ttft_ms is not None:
            first = self.first_content.get(task)
            if first is None:
                first = self.first_content[task] = Durations(CALL_BOUNDS_S)
            first.add(record.ttft_ms / 1_000)

    def _sums_of(self, task: str) -> Sums:
        sums = self.sums.get(task)
        if sums is None:
            sums = self.sums[task] = Sums()
        return sums


def outcome_of(status: int, code: str) -> str:
    """Return one of four words: served, refused, failed, left.

    A stream that broke off after content has status 200 and another code than `served`: it failed.
    """
    if code == _SERVED:
        return "served"
    if code == _LEFT:
        return "left"
    return "refused" if status in _REFUSED else "failed"
